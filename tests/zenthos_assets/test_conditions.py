"""Late data and healing, driven through days, nights, failures and recoveries."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from tests.zenthos_assets import standin
from tests.zenthos_assets.standin import BUILT, CLEANED, DAILY_ROLLUP, FEATURES, HOURLY_ROLLUP
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.conditions import REBUILT
from zenthos_assets.definitions import defs
from zenthos_assets.partitions import DAILY

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TODAY, YESTERDAY = "2026-11-25", "2026-11-24"

Requested = dict[dg.AssetKey, list[str]]


@dataclass
class Clockwork:
    """The stand-in lineage, its sensor ticked by hand."""

    instance: dg.DagsterInstance
    folder: Path
    definitions: dg.Definitions = field(default_factory=standin.standin)
    now: datetime = NOON
    cursor: object = None

    def tick(self, after: timedelta = timedelta(seconds=30)) -> Requested:
        """What the sensor asks for some time later."""
        self.now += after
        result = dg.evaluate_automation_conditions(
            self.definitions,
            self.instance,
            evaluation_time=self.now,
            cursor=self.cursor,
        )
        self.cursor = result.cursor
        asked = {key: sorted(map(str, result.get_requested_partitions(key))) for key in BUILT}
        return {key: days for key, days in asked.items() if days}

    def settled(self) -> Requested:
        """What the sensor asks for at the second tick after a change or a failure."""
        assert self.tick() == {}
        return self.tick()

    def run(
        self, first: str, last: str | None = None, *, only: list[dg.AssetKey] | None = None
    ) -> bool:
        """Build a range of days as a schedule or a person does; whether it succeeded."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        tags = {RANGE_START: first, RANGE_END: last or first}
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=only or list(BUILT),
            tags=tags,
            raise_on_error=False,
        ).success

    def archive(self, *days: str) -> None:
        """Readings of those days arrive in the lake."""
        for day in days:
            event = dg.AssetMaterialization(standin.DAYS, partition=day)
            self.instance.report_runless_asset_event(event)

    def let(self, name: str, happen: bool) -> None:
        """Make cleaning fail or its check refuse, or end that."""
        if happen:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink()


@pytest.fixture
def clockwork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clockwork]:
    """A lineage with three weeks built, and a sensor that has seen them."""
    monkeypatch.setenv(standin.FOLDER, str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        made = Clockwork(instance, tmp_path)
        assert made.tick() == {}
        assert made.run("2026-11-04", YESTERDAY)
        assert made.tick() == {}
        yield made


def days(first: str, last: str) -> list[str]:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    return [str(begin + timedelta(days=n)) for n in range((end - begin).days + 1)]


def test_every_daily_asset_of_silver_and_gold_has_the_condition() -> None:
    graph = defs().resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        wanted = node.group_name in REBUILT and node.partitions_def == DAILY
        assert (node.automation_condition is not None) is wanted, key


def test_rule_1_one_late_reading_rebuilds_its_day_and_the_windows_that_see_it(
    clockwork: Clockwork,
) -> None:
    clockwork.archive("2026-11-10")
    assert clockwork.settled() == {
        CLEANED: ["2026-11-10"],
        HOURLY_ROLLUP: ["2026-11-10"],
        DAILY_ROLLUP: ["2026-11-10"],
        FEATURES: days("2026-11-10", YESTERDAY),
    }
    clockwork.run("2026-11-10", only=[CLEANED, HOURLY_ROLLUP, DAILY_ROLLUP])
    clockwork.run("2026-11-10", YESTERDAY, only=[FEATURES])
    assert clockwork.tick() == {}


def test_rule_1_a_day_built_alone_leaves_its_windows_to_the_sensor(clockwork: Clockwork) -> None:
    assert clockwork.run("2026-11-20")
    assert clockwork.settled() == {FEATURES: days("2026-11-21", YESTERDAY)}


@pytest.mark.parametrize("ticks_between", [True, False])
def test_rule_1_a_reading_that_comes_after_the_rebuild_asks_for_another(
    clockwork: Clockwork, ticks_between: bool
) -> None:
    clockwork.archive("2026-11-10")
    assert CLEANED in clockwork.settled()
    clockwork.run("2026-11-10", YESTERDAY)
    if ticks_between:
        assert clockwork.tick() == {}
    clockwork.archive("2026-11-10")
    asked = clockwork.settled() if ticks_between else clockwork.tick()
    assert asked[CLEANED] == ["2026-11-10"]


def test_rule_1_whoever_archives_and_builds_at_once_is_not_doubled(clockwork: Clockwork) -> None:
    """As `zenthos demo` does: a tick in between asks for nothing."""
    clockwork.archive(*days("2026-11-10", YESTERDAY))
    assert clockwork.tick() == {}
    assert clockwork.run("2026-11-10", YESTERDAY)
    assert clockwork.tick() == {}
    assert clockwork.tick() == {}


def test_rule_2_unbuilt_days_and_today_wait_for_the_night(clockwork: Clockwork) -> None:
    clockwork.run(TODAY)
    clockwork.archive("2026-10-01", TODAY)
    assert clockwork.tick() == {}
    assert clockwork.tick() == {}


def test_rule_2_across_two_o_clock_the_schedule_builds_and_the_sensor_is_silent(
    clockwork: Clockwork,
) -> None:
    assert clockwork.tick(timedelta(hours=13, minutes=55)) == {}
    assert clockwork.tick(timedelta(minutes=10)) == {}, "02:04, yesterday is not built yet"
    assert clockwork.run(TODAY)
    assert clockwork.tick() == {}
    clockwork.archive(TODAY)
    assert clockwork.settled()[CLEANED] == [TODAY], "now it is a day like any other"


def test_rule_3_a_failed_day_is_tried_once_more_and_then_once_a_night(clockwork: Clockwork) -> None:
    clockwork.let("fail", True)
    attempts = 0
    assert not clockwork.run("2026-10-01")
    for _ in range(3 * 8):  # three days
        if clockwork.tick(timedelta(hours=3)).get(CLEANED) == ["2026-10-01"]:
            attempts += 1
            assert not clockwork.run("2026-10-01")
    assert attempts == 1 + 3


def test_rule_3_a_late_day_whose_rebuild_fails_is_healed(clockwork: Clockwork) -> None:
    clockwork.archive("2026-11-10")
    assert CLEANED in clockwork.settled()
    clockwork.let("fail", True)
    assert not clockwork.run("2026-11-10")
    assert clockwork.settled()[CLEANED] == ["2026-11-10"]
    clockwork.let("fail", False)
    assert clockwork.run("2026-11-10", YESTERDAY)
    assert clockwork.tick() == {}
    clockwork.let("fail", True)
    assert not clockwork.run("2026-11-10")
    assert clockwork.settled()[CLEANED] == ["2026-11-10"], "a new failure, a new attempt"


def test_rule_4_what_a_check_refused_goes_no_further_in_any_run(clockwork: Clockwork) -> None:
    clockwork.let("unsound", True)
    assert not clockwork.run("2026-10-01")
    assert clockwork.tick() == {}
    clockwork.archive("2026-11-10")
    assert clockwork.settled() == {CLEANED: ["2026-11-10"]}
    assert not clockwork.run("2026-11-10")
    assert clockwork.tick() == {}
    clockwork.let("unsound", False)
    assert clockwork.run("2026-10-01", only=[CLEANED])
    healed = clockwork.tick()
    assert "2026-10-01" in healed[HOURLY_ROLLUP]
    assert "2026-10-01" in healed[DAILY_ROLLUP]


def test_a_long_backfill_leaves_only_the_windows_after_it(clockwork: Clockwork) -> None:
    assert clockwork.run("2026-03-01", "2026-10-31")
    assert clockwork.settled() == {FEATURES: days("2026-11-04", YESTERDAY)}
    clockwork.run("2026-11-04", YESTERDAY, only=[FEATURES])
    assert clockwork.tick() == {}
