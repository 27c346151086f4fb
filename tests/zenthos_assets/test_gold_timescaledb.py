"""The analytical database on a real TimescaleDB; it has one session: nothing at the same time."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from tests.zenthos_assets.conftest import Farmyard
from tests.zenthos_assets.lake import (
    at,
    build,
    cleaned,
    failed_checks,
    hourly,
    put_silver,
    unchanged,
)
from zenthos_assets.gold.assets import telemetry_daily, telemetry_hourly
from zenthos_assets.gold.history_assets import telemetry_historical
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA, rollup
from zenthos_assets.silver.transforms import RANGES
from zenthos_core.database import Database, connect, migrate

TODAY = datetime.now(UTC).date()
DAY = TODAY - timedelta(days=20)
OLD = TODAY - timedelta(days=200)
ASSETS = (telemetry_historical, telemetry_hourly, telemetry_daily)


@pytest.fixture
def analytics_url(timescale: str) -> str:
    """The analytical database, for `farmyard`."""
    migrate(timescale, Database.ANALYTICS)
    return timescale


def compressed(yard: Farmyard) -> dict[date, bool]:
    query = (
        "SELECT range_start, is_compressed FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'telemetry_historical' ORDER BY 1"
    )
    return {start.date(): packed for start, packed in yard.query_analytics(query)}


def relation(yard: Farmyard, table: str, schema: pl.Schema) -> pl.DataFrame:
    """A rollup as the database has it, in the order of the transform."""
    columns = ", ".join("farm_id::text" if name == "farm_id" else name for name in schema)
    order = "device_id, " + schema.names()[0]
    rows = yard.query_analytics(f"SELECT {columns} FROM {table} ORDER BY {order}")
    return pl.DataFrame(rows, schema=schema, orient="row")


def awkward(day: date) -> list[dict[str, Any]]:
    """Values on, inside and outside of every range, missing ones, and hours with nothing good."""
    values: list[dict[str, Any]] = [dict.fromkeys(RANGES)]
    for low, high in zip(*zip(*RANGES.values(), strict=True), strict=True):
        edges = (low, high, low - 0.5, high + 0.5, (low + high) / 3)
        values += [dict.fromkeys(RANGES, float(edge)) for edge in edges]
    return [{"time": at(day, number / 4), **row} for number, row in enumerate(values)]


def test_a_database_that_was_in_use_gets_the_same_relations(timescale: str) -> None:
    migrate(timescale, Database.ANALYTICS, "0002")
    columns = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_name IN ('telemetry_hourly', 'telemetry_daily') ORDER BY 1, 2"
    )
    with connect(timescale, application="test") as connection:
        before = connection.execute(columns).fetchall()
    migrate(timescale, Database.ANALYTICS)
    with connect(timescale, application="test") as connection:
        assert connection.execute(columns).fetchall() == before
        views = "SELECT view_name FROM timescaledb_information.continuous_aggregates ORDER BY 1"
        assert connection.execute(views).fetchall() == [
            ("telemetry_daily_utc",),
            ("telemetry_hourly",),
        ]


def test_aggregates_are_the_rollups(farmyard: Farmyard) -> None:
    days = [DAY, DAY + timedelta(days=1)]
    rows = {day: awkward(day) + hourly(day, device_id="soil-2") for day in days}
    for day in days:
        put_silver(farmyard, day, rows[day])
    result = build(farmyard, *ASSETS, first=days[0], last=days[1])
    assert result.success
    assert not failed_checks(result)
    readings = pl.concat([cleaned(rows[day]) for day in days])
    for table, schema, period in (
        ("telemetry_hourly", HOURLY_SCHEMA, "hour"),
        ("telemetry_daily", DAILY_SCHEMA, "day"),
    ):
        expected = rollup(readings, period)  # type: ignore[arg-type]
        found = relation(farmyard, table, schema)
        assert found.drop(pl.selectors.float()).equals(expected.drop(pl.selectors.float()))
        for name in expected.select(pl.selectors.float()).columns:
            assert found[name].to_list() == pytest.approx(expected[name].to_list(), nan_ok=True)


def test_changed_and_vanished_readings_are_aggregated_anew(farmyard: Farmyard) -> None:
    put_silver(farmyard, DAY, hourly(DAY))
    put_silver(farmyard, DAY + timedelta(days=1), hourly(DAY + timedelta(days=1)))
    assert build(farmyard, *ASSETS, first=DAY, last=DAY + timedelta(days=1)).success
    assert compressed(farmyard)[DAY]
    put_silver(farmyard, DAY, hourly(DAY, 2, soil_moisture=50.0))
    result = build(farmyard, *ASSETS, first=DAY, last=DAY + timedelta(days=1))
    assert result.success
    assert not failed_checks(result)
    assert unchanged(result, telemetry_historical)[str(DAY)] is False
    assert farmyard.query_analytics(
        "SELECT soil_avg, sample_count FROM telemetry_daily ORDER BY day"
    ) == [
        (50.0, 2),
        (30.0, 24),
    ]
    assert farmyard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(26,)]
    assert compressed(farmyard)[DAY]


def test_days_past_the_retention_are_aggregated_and_not_kept(farmyard: Farmyard) -> None:
    put_silver(farmyard, OLD, hourly(OLD))
    put_silver(farmyard, DAY, hourly(DAY))
    for day in (OLD, DAY):
        result = build(farmyard, *ASSETS, first=day)
        assert result.success
        assert not failed_checks(result)
    assert list(compressed(farmyard)) == [DAY]
    assert farmyard.query_analytics(
        "SELECT day, sample_count FROM telemetry_daily ORDER BY day"
    ) == [
        (OLD, 24),
        (DAY, 24),
    ]


@pytest.mark.parametrize("hours", [2, 0])
def test_what_vanished_from_a_day_past_the_retention_leaves_its_aggregates(
    farmyard: Farmyard, hours: int
) -> None:
    put_silver(farmyard, OLD, hourly(OLD))
    assert build(farmyard, *ASSETS, first=OLD).success
    put_silver(farmyard, OLD, hourly(OLD, hours))
    result = build(farmyard, *ASSETS, first=OLD)
    assert result.success
    assert not failed_checks(result)
    assert farmyard.query_analytics("SELECT count(*) FROM telemetry_hourly") == [(hours,)]
    assert compressed(farmyard) == {}


def test_only_days_that_are_no_longer_warm_are_compressed(farmyard: Farmyard) -> None:
    for day in (DAY, TODAY):
        put_silver(farmyard, day, hourly(day))
        assert build(farmyard, telemetry_historical, first=day).success
    assert compressed(farmyard) == {DAY: True, TODAY: False}


def test_rollups_that_were_killed_before_their_refresh_are_refreshed(farmyard: Farmyard) -> None:
    put_silver(farmyard, DAY, hourly(DAY))
    rename = "ALTER MATERIALIZED VIEW {} RENAME TO {}"
    with connect(farmyard.analytics_url, application="test", autocommit=True) as connection:
        connection.execute(rename.format("telemetry_daily_utc", "hidden"))
    assert not build(farmyard, *ASSETS, first=DAY).success
    with connect(farmyard.analytics_url, application="test", autocommit=True) as connection:
        connection.execute(rename.format("hidden", "telemetry_daily_utc"))
    result = build(farmyard, *ASSETS, first=DAY)
    assert result.success
    assert not failed_checks(result)
    assert farmyard.query_analytics("SELECT sample_count FROM telemetry_daily") == [(24,)]
