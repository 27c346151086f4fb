"""Gold through kills, failing stores, damaged objects and runs at the same time."""

import threading
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from tests.zenthos_assets.conftest import Farmyard
from tests.zenthos_assets.faults import FaultyPlatform, run_program
from tests.zenthos_assets.lake import build, failed_checks, hourly, objects, put_silver, unchanged
from zenthos_assets.gold.assets import telemetry_daily, telemetry_hourly
from zenthos_assets.gold.history_assets import telemetry_historical
from zenthos_core import lake

TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=n) for n in (9, 8, 7)]
ASSETS = [telemetry_historical, telemetry_hourly, telemetry_daily]

KILLED = """
import sys
from datetime import date
import dagster as dg
from tests.zenthos_assets.faults import FaultyPlatform
from tests.zenthos_assets.lake import telemetry_hourly
from zenthos_assets.automation import RANGE_END, RANGE_START
directory, first, last, kill_after = sys.argv[1:]
dg.materialize(
    [telemetry_hourly],
    resources={"platform": FaultyPlatform(directory=directory, fail_put=-int(kill_after))},
    tags={RANGE_START: first, RANGE_END: last},
)
"""


def state(yard: Farmyard) -> tuple[dict[str, bytes], list[object], list[object]]:
    rows = yard.query_analytics("TABLE telemetry_hourly ORDER BY 1, 2")
    return objects(yard), rows, yard.query_analytics("TABLE telemetry_historical ORDER BY 1, 2")


def builds(yard: Farmyard, asset: str) -> int:
    [(count,)] = yard.query_analytics(f"SELECT count(*) FROM etl_runs WHERE asset = '{asset}'")
    return int(count)


def error_of(result: dg.ExecuteInProcessResult) -> str:
    """What the innermost error of a failed run says."""
    [failure] = [e for e in result.all_events if e.is_step_failure]
    error = failure.step_failure_data.error
    while error and error.cause:
        error = error.cause
    return error.message if error else ""


@pytest.fixture
def yard(farmyard: Farmyard) -> Farmyard:
    """With three days of silver."""
    for day in DAYS:
        put_silver(farmyard, day, hourly(day))
    return farmyard


@pytest.mark.fault
def test_a_run_killed_between_object_and_table_twice(yard: Farmyard) -> None:
    for kill_after in (1, 2):
        span = (DAYS[0], DAYS[-1])
        assert run_program(KILLED, yard.platform.directory, *span, kill_after) == -9
        assert len(objects(yard)) == kill_after
        assert yard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(0,)]
        assert builds(yard, "gold/telemetry_hourly") == 0
    result = build(yard, *ASSETS, first=DAYS[0], last=DAYS[-1])
    assert result.success
    assert not failed_checks(result)
    assert yard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(72,)]
    assert builds(yard, "gold/telemetry_hourly") == 3


@pytest.mark.parametrize("fault", [{"fail_put": 1}, {"fail_put": 3}, {"fail_get": 1}])
def test_a_store_that_fails_leaves_nothing_half_built(
    yard: Farmyard, fault: dict[str, int]
) -> None:
    assert build(yard, *ASSETS, first=DAYS[0], last=DAYS[-1]).success
    before = state(yard)
    put_silver(yard, DAYS[1], hourly(DAYS[1], soil_moisture=40.0))
    faulty = FaultyPlatform(directory=yard.platform.directory, **fault)
    span = {"first": DAYS[0], "last": DAYS[-1]}
    failed = build(yard, telemetry_hourly, **span, force=True, platform=faulty)
    assert not failed.success
    assert "the disk refused" in error_of(failed)
    assert state(yard)[1:] == before[1:]
    result = build(yard, *ASSETS, **span)
    assert result.success
    assert not failed_checks(result)
    assert yard.query_analytics("SELECT DISTINCT soil_avg FROM telemetry_daily ORDER BY 1") == [
        (30.0,),
        (40.0,),
    ]


def test_a_truncated_silver_object_is_named_and_can_be_built_again(yard: Farmyard) -> None:
    key = lake.day_key("telemetry_cleaned", DAYS[1])
    whole = yard.store.get(lake.SILVER, key)
    yard.store.put(lake.SILVER, key, whole[: len(whole) // 2])
    result = build(yard, telemetry_hourly, first=DAYS[0], last=DAYS[-1])
    assert not result.success
    said = error_of(result)
    assert f"{lake.SILVER}/{key} cannot be read" in said
    assert f"silver/telemetry_cleaned of {DAYS[1]} with force: true" in said
    assert builds(yard, "gold/telemetry_hourly") == 0
    yard.store.put(lake.SILVER, key, whole)
    assert build(yard, *ASSETS, first=DAYS[0], last=DAYS[-1]).success


def test_two_runs_of_the_same_partitions_at_once_build_them_once(yard: Farmyard) -> None:
    results: list[bool] = []

    def run() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            own = Farmyard(yard.platform, yard.ops_url, yard.analytics_url, yard.store, instance)
            results.append(build(own, *ASSETS, first=DAYS[0], last=DAYS[-1]).success)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True]
    for asset in ASSETS:
        assert builds(yard, asset.key.to_user_string()) == 3
    assert yard.query_analytics("SELECT count(*) FROM telemetry_historical") == [(72,)]


def test_what_the_lake_has_lost_is_built_again(yard: Farmyard) -> None:
    assert build(yard, *ASSETS, first=DAYS[0], last=DAYS[-1]).success
    before = state(yard)
    yard.store.path(lake.GOLD, lake.day_key("telemetry_hourly", DAYS[1])).unlink()
    result = build(yard, telemetry_hourly, first=DAYS[0], last=DAYS[-1])
    assert unchanged(result, telemetry_hourly) == {str(day): day != DAYS[1] for day in DAYS}
    assert state(yard) == before


def test_rows_that_somebody_deleted_fail_the_check_until_a_forced_run(yard: Farmyard) -> None:
    span = {"first": DAYS[0], "last": DAYS[-1]}
    assert build(yard, *ASSETS, **span).success
    before = state(yard)
    yard.analyse("DELETE FROM telemetry_hourly WHERE bucket < %s", DAYS[1])
    result = build(yard, telemetry_hourly, **span)
    assert failed_checks(result) == {"reconciles_with_silver"}
    assert not failed_checks(build(yard, telemetry_hourly, **span, force=True))
    assert state(yard) == before


def test_rows_that_vanished_from_silver_leave_the_tables(yard: Farmyard) -> None:
    span = {"first": DAYS[0], "last": DAYS[-1]}
    assert build(yard, *ASSETS, **span).success
    put_silver(yard, DAYS[1], hourly(DAYS[1], 5))
    put_silver(yard, DAYS[2], [])
    result = build(yard, *ASSETS, **span)
    assert result.success
    assert not failed_checks(result) - {"usual_row_count"}
    for table in ("telemetry_hourly", "telemetry_historical"):
        assert yard.query_analytics(f"SELECT count(*) FROM {table}") == [(29,)]
    assert yard.query_analytics("SELECT count(*) FROM telemetry_daily") == [(2,)]


def test_a_day_alone_equals_the_day_in_a_range(yard: Farmyard) -> None:
    assert build(yard, *ASSETS, first=DAYS[0], last=DAYS[-1]).success
    before = state(yard)
    for day in DAYS:
        assert build(yard, *ASSETS, first=day, force=True).success
    assert state(yard) == before


def test_a_day_without_readings_is_built_empty(farmyard: Farmyard) -> None:
    day: date = DAYS[0]
    assert build(farmyard, *ASSETS, first=day).success
    put_silver(farmyard, day, [])
    result = build(farmyard, *ASSETS, first=day)
    assert result.success
    assert not failed_checks(result)
    assert set(objects(farmyard)) == {
        lake.day_key(table, day) for table in ("telemetry_hourly", "telemetry_daily")
    }
