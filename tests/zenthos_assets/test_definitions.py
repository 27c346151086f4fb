"""The code location loads, and its schedules ask for the right partitions."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest

from tests.conftest import ROOT
from tests.zenthos_assets.conftest import RECEIVED, Farmyard, reading
from zenthos_assets.automation import (
    RANGE_END,
    RANGE_START,
    daily_build,
    due_days,
    hourly_archive,
    stream_totals,
)
from zenthos_assets.definitions import defs
from zenthos_assets.partitions import DAILY

LINEAGE = [
    "mqtt_stream",
    "bronze/telemetry",
    "bronze/telemetry_days",
    "silver/weather_hourly",
    "silver/telemetry_cleaned",
    "gold/telemetry_hourly",
    "gold/ml_features",
    "ml/training_set",
    "ml/irrigation_model",
    "ml/irrigation_model_tflite",
    "ota/model_release",
]


def test_loads_as_one_graph_from_stream_to_release() -> None:
    graph = defs().resolve_asset_graph()
    for parent, child in pairwise(LINEAGE):
        key = dg.AssetKey.from_user_string(child)
        assert dg.AssetKey.from_user_string(parent) in graph.get(key).parent_keys


@pytest.mark.parametrize(
    "asset", [n for n in LINEAGE[1:] if n not in {"bronze/telemetry_days", "silver/weather_hourly"}]
)
def test_every_asset_is_described_owned_and_checked(asset: str) -> None:
    graph = defs().resolve_asset_graph()
    node = graph.get(dg.AssetKey.from_user_string(asset))
    assert node.description
    assert node.owners
    assert node.kinds
    assert node.check_keys
    text = (ROOT / "docs/reference/lineage.md").read_text()
    assert f"`{asset}`" in text
    assert all(f"`{key.name}`" in text for key in node.check_keys)


@pytest.mark.parametrize("asset", LINEAGE[3:7])
@pytest.mark.parametrize("day", [date(2020, 1, 1), datetime.now(UTC).date()])
def test_the_first_day_and_today_can_be_backfilled(asset: str, day: date) -> None:
    """Dagster refuses a range that needs partitions which do not exist (yet)."""
    graph = defs().resolve_asset_graph()
    key = dg.AssetKey.from_user_string(asset)
    parents = graph.get(key).parent_keys & set(graph.materializable_asset_keys)
    for parent in parents:
        mapped = graph.get_partition_mapping(
            key, parent
        ).get_upstream_mapped_partitions_result_for_partitions(
            DAILY.subset_with_partition_keys([str(day)]),
            DAILY,
            graph.get(parent).partitions_def or DAILY,
        )
        assert mapped.required_but_nonexistent_subset.is_empty


def test_jobs_schedules_and_sensors_are_documented() -> None:
    text = (ROOT / "docs/reference/lineage.md").read_text()
    loaded = defs()
    for thing in (*(loaded.jobs or ()), *(loaded.schedules or ()), *(loaded.sensors or ())):
        assert f"`{thing.name}`" in text


def at(time: datetime, yard: Farmyard) -> dg.ScheduleEvaluationContext:
    return dg.build_schedule_context(
        scheduled_execution_time=time, resources={"platform": yard.platform}
    )


def ranges(requests: object) -> list[tuple[str, str]]:
    assert isinstance(requests, list)
    return [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in requests]


def test_hourly_archive_reaches_back_to_what_still_waits(farmyard: Farmyard) -> None:
    tick = datetime(2026, 11, 20, 9, 5, tzinfo=UTC)
    assert ranges(list(hourly_archive(at(tick, farmyard)))) == [
        ("2026-11-20-08:00", "2026-11-20-08:00")
    ]
    farmyard.receive([reading("soil-1", RECEIVED)])
    assert ranges(list(hourly_archive(at(tick, farmyard)))) == [
        ("2026-11-20-05:00", "2026-11-20-08:00")
    ]


def test_daily_build_adds_days_of_late_readings(farmyard: Farmyard) -> None:
    tick = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    yesterday = tick.date() - timedelta(days=1)
    assert ranges(list(daily_build(at(tick, farmyard)))) == [(str(yesterday), str(yesterday))]
    late = datetime(2026, 5, 1, tzinfo=UTC)
    farmyard.receive([reading("soil-1", late)])
    farmyard.run("archive", "2026-11-20-05:00")
    assert ranges(list(daily_build(at(tick, farmyard)))) == [
        ("2026-05-01", "2026-05-31"),
        (str(yesterday), str(yesterday)),
    ]


@pytest.mark.parametrize(("age_h", "seen"), [(24.5, True), (26, False)])
def test_daily_build_sees_an_archive_that_was_running_at_the_last_tick(
    farmyard: Farmyard, age_h: float, seen: bool
) -> None:
    tick = datetime(2026, 11, 21, 2, tzinfo=UTC)
    farmyard.receive([reading("soil-1", datetime(2026, 5, 1, tzinfo=UTC))])
    farmyard.run("archive", "2026-11-20-05:00")
    assert farmyard.run("daily", "2026-05-01").success
    farmyard.execute("UPDATE bronze_objects SET archived_at = %s", tick - timedelta(hours=age_h))
    built = ranges(list(daily_build(at(tick, farmyard))))
    assert (("2026-05-01", "2026-05-31") in built) is seen


def test_daily_build_makes_up_for_nights_it_missed(farmyard: Farmyard) -> None:
    """Whether the daemon was down or a build failed: a day that was never built is due."""
    tick = datetime(2026, 11, 21, 2, tzinfo=UTC)
    farmyard.receive([reading("soil-1", datetime(2026, 5, 1, tzinfo=UTC))])
    farmyard.run("archive", "2026-11-20-05:00")
    farmyard.execute("UPDATE bronze_objects SET archived_at = %s", tick - timedelta(days=90))
    assert ("2026-05-01", "2026-05-31") in ranges(list(daily_build(at(tick, farmyard))))
    assert farmyard.run("daily", "2026-05-01").success
    assert ranges(list(daily_build(at(tick, farmyard)))) == [("2026-11-20", "2026-11-20")]


LAST_NIGHT = datetime(2026, 11, 20, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("archived_h", "built_h", "due"),
    [
        pytest.param(-50, None, True, id="never built"),
        pytest.param(-50, -40, False, id="built since"),
        pytest.param(-50, -60, True, id="built before its newest readings came"),
        pytest.param(1, 2, True, id="touched since last night, perhaps during the build"),
    ],
)
def test_a_day_is_due(archived_h: float, built_h: float | None, due: bool) -> None:
    def moment(hours: float) -> datetime:
        return LAST_NIGHT + timedelta(hours=hours)

    day = date(2026, 5, 1)
    built = {} if built_h is None else {day: moment(built_h)}
    assert due_days({day: moment(archived_h)}, built, LAST_NIGHT) == ([day] if due else [])


def test_all_but_retraining_runs_by_default_and_says_what_it_does() -> None:
    loaded = defs()
    by_name = {thing.name: thing for thing in (*(loaded.schedules or ()), *(loaded.sensors or ()))}
    stopped = {name for name, thing in by_name.items() if thing.default_status.value != "RUNNING"}
    assert stopped == {"weekly_retrain"}
    described = [*by_name.values(), *(loaded.jobs or ())]
    assert all(thing.description for thing in described)
    text = (ROOT / "docs/reference/lineage.md").read_text()
    assert [thing.name for thing in described if f"`{thing.name}`" not in text] == []


def test_schedules_tick_at_their_times() -> None:
    cron = {s.name: s.cron_schedule for s in defs().schedules or ()}
    assert cron == {
        "hourly_archive": "5 * * * *",
        "daily_build": "0 2 * * *",
        "weekly_maintenance": "0 3 * * 0",
        "weekly_retrain": "0 4 * * 1",
    }


def test_the_weekly_job_holds_trends_and_maintenance() -> None:
    job = defs().resolve_job_def("weekly")
    keys = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert {
        "maintenance/backup_ops",
        "maintenance/vacuum_analytics",
        "gold/telemetry_trends",
    } <= keys


def test_the_stream_is_observed_when_messages_came(farmyard: Farmyard) -> None:
    def tick(cursor: str | None) -> object:
        context = dg.build_sensor_context(cursor=cursor, resources={"platform": farmyard.platform})
        return stream_totals(context)

    assert isinstance(tick(None), dg.SkipReason)
    farmyard.receive([reading("soil-1", RECEIVED)])
    seen = tick(None)
    assert isinstance(seen, dg.SensorResult)
    assert seen.asset_events[0].metadata["received"].value == 1
    assert isinstance(tick("1"), dg.SkipReason)
