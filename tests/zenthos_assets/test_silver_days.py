"""Days of silver on real databases: what is skipped, kept, moved and healed."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tests.zenthos_assets.conftest import RECEIVED, Farmyard, reading
from tests.zenthos_assets.faults import FaultyStore, run_program
from zenthos_assets import parquet, runs
from zenthos_assets.bronze.outbox import archive_hour
from zenthos_assets.silver.checks import silver_results
from zenthos_assets.silver.day_runs import (
    CLEANED,
    CLEANED_ASSET,
    STATISTICS,
    WEATHER,
    Outcome,
    Session,
    clean_days,
    session,
)
from zenthos_assets.silver.errors import OPEN_SCHEMA, open_errors
from zenthos_assets.silver.examine import examine
from zenthos_assets.silver.reference import WEATHER_SCHEMA
from zenthos_assets.silver.shards import PIECES, join_days, piece, whole
from zenthos_assets.silver.statistics import SCHEMA as STATISTICS_SCHEMA
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_assets.silver.weather_runs import WEATHER_ASSET, weather_days
from zenthos_core import lake
from zenthos_core.errors import ArchiveError

FIRST = datetime(2026, 11, 18, tzinfo=UTC)
DAY = FIRST.date()
NEXT = DAY + timedelta(days=1)
BROKEN = reading("soil-1", FIRST).replace(b"20.0", b'"20"')


def archive(yard: Farmyard, payloads: Sequence[bytes], *, at: datetime = RECEIVED) -> None:
    """Receive messages and archive their hour."""
    yard.receive(payloads, at=at)
    with yard.platform.ops() as connection:
        hour = at.replace(minute=0)
        list(archive_hour(connection, yard.store, "telemetry", hour, run_id="archive"))


@contextmanager
def opened(
    yard: Farmyard, days: Sequence[date], *, run_id: str = "run", force: bool = False
) -> Iterator[Session]:
    with session(yard.platform, CLEANED_ASSET, days, run_id=run_id, force=force) as run:
        yield run


def build(yard: Farmyard, *days: date, run_id: str = "run", force: bool = False) -> Outcome:
    with opened(yard, days, run_id=run_id, force=force) as run:
        return clean_days(run, whole(), days)


def silver(yard: Farmyard, day: date = DAY) -> pl.DataFrame:
    return parquet.read_days(yard.store, lake.SILVER, CLEANED, [day], SCHEMA)


def silver_bytes(yard: Farmyard) -> dict[str, bytes]:
    keys = yard.store.keys(lake.SILVER)
    return {key: yard.store.get(lake.SILVER, key) for key in keys if PIECES not in key}


def hourly(device_id: str = "soil-1", hours: int = 24) -> list[bytes]:
    return [reading(device_id, FIRST + timedelta(hours=hour)) for hour in range(hours)]


def kept_errors(yard: Farmyard) -> list[tuple[object, ...]]:
    return yard.execute(
        "SELECT reason, device_id, payload, occurrences, state FROM etl_errors ORDER BY id"
    )


def built(yard: Farmyard) -> int:
    return int(yard.query_analytics("SELECT count(*) FROM etl_runs")[0][0])


def test_unchanged_input_is_skipped_unless_forced(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    assert build(farmyard, DAY, NEXT).rebuilt == [DAY, NEXT]
    before = silver_bytes(farmyard)
    again = build(farmyard, DAY, NEXT)
    assert again.rebuilt == []
    assert [again.builds[day].rows_out for day in (DAY, NEXT)] == [24, 0]
    assert build(farmyard, DAY, force=True).rebuilt == [DAY]
    assert silver_bytes(farmyard) == before
    assert built(farmyard) == 3


def test_late_readings_change_their_day_alone(farmyard: Farmyard) -> None:
    archive(farmyard, hourly(hours=30))
    build(farmyard, DAY, NEXT)
    late = reading("soil-1", FIRST + timedelta(minutes=30))
    archive(farmyard, [late], at=RECEIVED + timedelta(days=2))
    assert build(farmyard, DAY, NEXT).rebuilt == [DAY]
    assert len(silver(farmyard)) == 25


def test_what_the_lake_has_lost_is_built_again(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    build(farmyard, DAY)
    before = silver_bytes(farmyard)
    farmyard.store.path(lake.SILVER, whole().key_of(DAY)).unlink()
    assert build(farmyard, DAY).rebuilt == [DAY]
    assert silver_bytes(farmyard) == before


def test_rows_in_are_rows_out_duplicates_and_quarantined(farmyard: Farmyard) -> None:
    one = reading("soil-1", FIRST)
    archive(farmyard, [one, one, BROKEN, BROKEN, reading("nobody", FIRST), *hourly("soil-2")])
    row = build(farmyard, DAY).builds[DAY]
    assert (row.rows_in, row.rows_out) == (29, 25)
    assert (row.rows_duplicate, row.rows_quarantined) == (1, 3)


def test_a_malformed_message_blocks_nothing_and_is_kept_once(farmyard: Farmyard) -> None:
    archive(farmyard, [*hourly(), BROKEN, BROKEN])
    outcome = build(farmyard, DAY)
    assert not outcome.lost
    assert kept_errors(farmyard) == [("wrong_type", "soil-1", BROKEN, 2, "open")]
    farmyard.execute("UPDATE etl_errors SET state = 'dismissed'")
    build(farmyard, DAY, run_id="another", force=True)
    assert kept_errors(farmyard) == [("wrong_type", "soil-1", BROKEN, 2, "dismissed")]


def test_a_stranger_is_kept_and_comes_in_once_it_is_registered(farmyard: Farmyard) -> None:
    theirs = reading("soil-9", FIRST)
    archive(farmyard, [reading("soil-1", FIRST), theirs])
    build(farmyard, DAY)
    assert kept_errors(farmyard) == [("unregistered_device", "soil-9", theirs, 1, "open")]
    assert build(farmyard, DAY, run_id="second").rebuilt == []
    farmyard.register("soil-9")
    assert build(farmyard, DAY, run_id="third").rebuilt == [DAY]
    assert sorted(silver(farmyard)["device_id"]) == ["soil-1", "soil-9"]
    assert kept_errors(farmyard)[0][-1] == "resolved"
    assert build(farmyard, DAY, run_id="fourth").rebuilt == []


def test_a_message_that_goes_missing_blocks_and_is_not_recorded(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    farmyard.execute("UPDATE bronze_days SET row_count = row_count + 1")
    outcome = build(farmyard, DAY)
    assert outcome.lost == {DAY: "25 archived, 24 accounted for"}
    assert built(farmyard) == 0
    found = examine(STATISTICS_SCHEMA.to_frame(), [DAY], now=RECEIVED, intervals_s={})
    results = silver_results(outcome, found, OPEN_SCHEMA.to_frame())
    assert {r.check_name for r in results if not r.passed} == {"nothing_lost"}


def test_a_device_moved_today_keeps_yesterday(farmyard: Farmyard) -> None:
    archive(farmyard, hourly(hours=48))
    placed = FIRST + timedelta(days=1, hours=12)
    farmyard.execute("UPDATE device_placements SET valid_from = %s", FIRST - timedelta(days=9))
    build(farmyard, DAY, NEXT)
    before = farmyard.store.get(lake.SILVER, whole().key_of(DAY))
    farmyard.execute("INSERT INTO farms (name) VALUES ('south')")
    farmyard.execute(
        "UPDATE devices SET farm_id = (SELECT id FROM farms WHERE name = 'south')"
        " WHERE id = 'soil-1'"
    )
    farmyard.execute(
        "UPDATE device_placements SET valid_from = %s WHERE valid_from > now() - interval '1 hour'",
        placed,
    )
    assert build(farmyard, DAY, NEXT).rebuilt == [NEXT]
    farms = dict(farmyard.execute("SELECT id::text, name FROM farms"))
    where = silver(farmyard, NEXT)["farm_id"].replace_strict(farms).to_list()
    assert where == ["north"] * 12 + ["south"] * 12
    build(farmyard, DAY, force=True)
    assert farmyard.store.get(lake.SILVER, whole().key_of(DAY)) == before


def test_a_renamed_device_leaves_its_readings_under_the_old_id(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    build(farmyard, DAY)
    before = silver_bytes(farmyard)
    farmyard.register("soil-1b")
    archive(farmyard, [reading("soil-1b", FIRST + timedelta(days=1))], at=RECEIVED)
    assert build(farmyard, DAY, NEXT).rebuilt == [NEXT]
    assert silver_bytes(farmyard)[whole().key_of(DAY)] == before[whole().key_of(DAY)]
    assert silver(farmyard, NEXT)["device_id"].to_list() == ["soil-1b"]


def test_fields_gained_lost_and_retyped(farmyard: Farmyard) -> None:
    base = reading("soil-1", FIRST)
    gained = reading("soil-1", FIRST + timedelta(hours=1), sensors={"temperature": 1.0, "co2": 4.0})
    lost = reading("soil-1", FIRST + timedelta(hours=2), sensors={"humidity": 50.0})
    retyped = reading("soil-1", FIRST + timedelta(hours=3)).replace(b"30.0", b'"wet"')
    unknown = reading("soil-1", FIRST + timedelta(hours=4)).replace(b"{", b'{"shade": true, ', 1)
    archive(farmyard, [base, gained, lost, retyped, unknown])
    build(farmyard, DAY)
    found = silver(farmyard)
    assert found["temperature"].to_list() == [20.0, 1.0, None, 20.0]
    assert found["extra"].to_list() == [None, '{"co2":4.0}', None, None]
    assert [row[:2] for row in kept_errors(farmyard)] == [("wrong_type", "soil-1")]


def test_a_damaged_archive_says_which_object(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    [(key,)] = farmyard.execute("SELECT object_key FROM bronze_objects")
    farmyard.store.put(lake.BRONZE, key, farmyard.store.get(lake.BRONZE, key)[:-20])
    with pytest.raises(ArchiveError, match=f"{key} is damaged"):
        build(farmyard, DAY)
    assert built(farmyard) == 0


@pytest.mark.parametrize("fault", ["put", "get"])
def test_a_store_that_fails_at_any_call_leaves_a_day_to_be_built(
    farmyard: Farmyard, fault: str
) -> None:
    archive(farmyard, [*hourly(), BROKEN])
    build(farmyard, DAY, NEXT)
    archive(farmyard, [reading("soil-2", FIRST)], at=RECEIVED + timedelta(days=1))
    for call in range(1, 30):
        with opened(farmyard, [DAY, NEXT], run_id=f"{call}", force=True) as run:
            failing = FaultyStore(farmyard.store, **{fault: call})
            try:
                clean_days(replace(run, store=failing), whole(), [DAY, NEXT])
            except OSError:
                continue
            break
    assert call > 3
    assert len(silver(farmyard)) == 25
    assert len(kept_errors(farmyard)) == 1
    after = silver_bytes(farmyard)
    build(farmyard, DAY, NEXT, force=True)
    assert silver_bytes(farmyard) == after


KILLED = """
import os, sys
from datetime import date
from zenthos_assets.resources import Platform
from zenthos_assets.silver import day_runs
from zenthos_assets.silver.shards import whole

day_runs.record = lambda *_: os._exit(9)  # between the object and its row
days = [date.fromisoformat(sys.argv[2])]
platform = Platform(directory=sys.argv[1])
with day_runs.session(platform, day_runs.CLEANED_ASSET, days, run_id="k", force=False) as run:
    day_runs.clean_days(run, whole(), days)
"""


@pytest.mark.fault
def test_a_run_killed_before_its_row_twice_is_as_if_it_had_not_been(farmyard: Farmyard) -> None:
    archive(farmyard, [*hourly(), BROKEN])
    for _ in range(2):
        assert run_program(KILLED, farmyard.platform.directory, DAY) == 9
        assert built(farmyard) == 0
    killed = silver_bytes(farmyard)
    assert build(farmyard, DAY).rebuilt == [DAY]
    assert silver_bytes(farmyard) == killed
    assert len(kept_errors(farmyard)) == 1


ELSEWHERE = """
import sys
from datetime import date
from zenthos_assets.resources import Platform
from zenthos_assets.silver import day_runs, weather_runs
from zenthos_assets.silver.shards import whole

days = [date.fromisoformat(sys.argv[2])]
platform = Platform(directory=sys.argv[1])
with day_runs.session(platform, day_runs.CLEANED_ASSET, days, run_id="e", force=True) as run:
    weather_runs.weather_days(run, days)
    day_runs.clean_days(run, whole(), days)
"""


def test_the_time_zone_of_the_machine_changes_no_byte(farmyard: Farmyard) -> None:
    archive(farmyard, [*hourly(), reading("soil-1", FIRST + timedelta(hours=23, minutes=59))])
    with opened(farmyard, [DAY], force=True) as run:
        weather_days(run, [DAY])
        clean_days(run, whole(), [DAY])
    before = silver_bytes(farmyard)
    command = [sys.executable, "-c", ELSEWHERE, str(farmyard.platform.directory), str(DAY)]
    environment = os.environ | {"TZ": "America/New_York"}
    subprocess.run(command, check=True, timeout=120, env=environment)
    assert silver_bytes(farmyard) == before


def test_two_runs_at_once_build_a_day_once(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda n=n: outcomes.append(build(farmyard, DAY, run_id=f"{n}")))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(len(outcome.rebuilt) for outcome in outcomes) == [0, 0, 1]
    assert built(farmyard) == 1


def test_a_day_in_three_pieces_has_the_same_bytes(farmyard: Farmyard) -> None:
    devices = [f"soil-{n}" for n in range(1, 8)]
    farmyard.register(*devices[2:])
    archive(farmyard, [m for d in devices for m in [*hourly(d), *hourly(d, 2)]] + [BROKEN])
    build(farmyard, DAY, NEXT)
    expected = silver_bytes(farmyard)
    pieces = [piece(number, 3) for number in range(3)]
    for target in pieces:
        with session(farmyard.platform, target.asset, [DAY], run_id="p", force=False) as run:
            assert not clean_days(run, target, [DAY, NEXT]).lost
    with opened(farmyard, [DAY, NEXT]) as run:
        joined = join_days(run, [DAY, NEXT], pieces)
        assert joined.rebuilt == [DAY, NEXT]
        assert join_days(run, [DAY, NEXT], pieces).rebuilt == []
        assert run.store.get(lake.SILVER, whole().key_of(DAY)) == expected[whole().key_of(DAY)]
        known = runs.latest_builds(run.analytics, CLEANED_ASSET, [str(DAY)])[str(DAY)]
    assert silver_bytes(farmyard) == expected
    assert (known.rows_in, known.rows_out, known.rows_duplicate) == (26 * 7 + 1, 24 * 7, 2 * 7)
    assert [row[0] for row in kept_errors(farmyard)] == ["wrong_type"]


def test_a_missing_or_changed_piece_stops_the_join(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    pieces = [piece(number, 2) for number in range(2)]
    with opened(farmyard, [DAY]) as run:
        clean_days(run, pieces[0], [DAY])
        with pytest.raises(ArchiveError, match="telemetry_cleaned_1 has no sound build of"):
            join_days(run, [DAY], pieces)
        clean_days(run, pieces[1], [DAY])
        run.store.put(lake.SILVER, pieces[0].key_of(DAY), b"other")
        with pytest.raises(ArchiveError, match="is not what etl_runs says"):
            join_days(run, [DAY], pieces)


def test_weather_is_built_before_and_joined(farmyard: Farmyard) -> None:
    wet = {"rainfall_mm": 5.0, "temperature": 12.0}
    archive(farmyard, [reading("soil-1", FIRST, sensors=wet), *hourly("soil-2", 3)])
    with opened(farmyard, [DAY], run_id="weather") as run:
        assert weather_days(run, [DAY]).rebuilt == [DAY]
        assert weather_days(run, [DAY]).rebuilt == []
        assert str(DAY) in runs.latest_builds(run.analytics, WEATHER_ASSET, [str(DAY)])
    weather = parquet.read_days(farmyard.store, lake.SILVER, WEATHER, [DAY], WEATHER_SCHEMA)
    assert weather.select("rain_mm", "weather_condition").rows() == [(5.0, "heavy_rain")]
    build(farmyard, DAY)
    by_hour = silver(farmyard).group_by("weather_condition").len().rows()
    assert dict(by_hour) == {"heavy_rain": 2, None: 2}


def test_irrigation_is_flagged_while_it_lasts(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    build(farmyard, DAY)
    farmyard.execute(
        "INSERT INTO irrigation_events (farm_id, timestamp, duration_minutes)"
        " SELECT id, %s, NULL FROM farms UNION SELECT id, %s, 90 FROM farms",
        FIRST + timedelta(hours=2),
        FIRST + timedelta(hours=5),
    )
    assert build(farmyard, DAY).rebuilt == [DAY]
    watered = silver(farmyard).filter("irrigation_event")["time"].to_list()
    assert watered == [FIRST + timedelta(hours=hour) for hour in (2, 5, 6)]


def test_open_errors_are_counted_by_reason(farmyard: Farmyard) -> None:
    archive(farmyard, [reading("nobody", FIRST), reading("nobody", FIRST + timedelta(hours=1))])
    build(farmyard, DAY)
    with farmyard.platform.ops() as connection:
        rows = open_errors(connection, CLEANED_ASSET, [DAY]).rows()
    assert rows == [("unregistered_device", "nobody", 2)]


def test_statistics_lie_beside_the_readings(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    build(farmyard, DAY)
    found = parquet.read_days(farmyard.store, lake.SILVER, STATISTICS, [DAY], STATISTICS_SCHEMA)
    assert found.select("device_id", "readings").rows() == [("soil-1", 24)]
