"""Rules of zenthos_assets/rollouts/source.py, by number, on a real database."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.zenthos_assets.rollouts.rows import GOOD, VERSION, Rows
from zenthos_assets.rollouts import source
from zenthos_assets.rollouts.source import VIOLATES, measure, running_rollouts
from zenthos_assets.rollouts.transforms import Quality
from zenthos_assets.silver.transforms import RANGES, quality

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
UPDATED = NOW - timedelta(minutes=30)
BEFORE = NOW - timedelta(hours=5)


def measured(rows: Rows) -> Quality | None:
    [rollout] = running_rollouts(rows.connection)
    return measure(rows.connection, rollout, NOW)


def begin(rows: Rows) -> None:
    """One updated device with readings before and after, one device that waits."""
    rollout = rows.rollout(rows.release())
    rows.device("new-1", NOW, firmware_version=VERSION)
    rows.device("old-1", NOW)
    rows.deploy(rollout, "new-1", "success", NOW, confirmed_at=UPDATED)
    rows.report("new-1", BEFORE, 10, temperature=-99)
    rows.report("new-1", UPDATED, 30, temperature=99)
    rows.report("old-1", BEFORE, 10)
    rows.report("old-1", UPDATED, 30)


def test_rule_1_updated_devices_are_measured_from_their_boot_on(rows: Rows) -> None:
    begin(rows)
    found = measured(rows)
    assert found is not None
    assert (found.window_s, found.measured_at) == (1800, int(NOW.timestamp()))
    assert (found.updated.devices, found.updated.readings) == (1, 30)
    assert found.updated.range_violation_rate == 1
    assert found.updated.gap_rate == 0


@pytest.mark.parametrize(
    ("state", "confirmed", "counts"),
    [
        ("success", True, True),
        ("rebooting", True, True),
        ("timed_out", True, True),
        ("already-installed", False, True),
        ("rebooting", False, False),
        ("failure", False, False),
        ("pending", False, False),
    ],
)
def test_rule_1_who_is_updated(rows: Rows, state: str, confirmed: bool, counts: bool) -> None:
    rollout = rows.rollout(rows.release())
    rows.device("new-1", NOW)
    rows.device("old-1", NOW)
    rows.deploy(rollout, "new-1", state, UPDATED, UPDATED if confirmed else None)
    rows.report("new-1", UPDATED, 30)
    rows.report("old-1", UPDATED, 30)
    assert (measured(rows) is not None) == counts


def test_rule_2_control_are_matching_devices_without_an_offer(rows: Rows) -> None:
    other = rows.one("INSERT INTO farms (name) VALUES ('other') RETURNING id")
    rollout = rows.rollout(rows.release(), farm_id=rows.farm, tag="soil")
    tagged = {"tags": ["soil", "north"]}
    rows.device("new-1", NOW, **tagged)
    rows.deploy(rollout, "new-1", "success", UPDATED, confirmed_at=UPDATED)
    rows.report("new-1", UPDATED, 30)
    rows.device("old-1", NOW, **tagged)
    rows.device("offered", NOW, **tagged)
    rows.deploy(rollout, "offered", "downloading", NOW)
    rows.device("untagged", NOW)
    rows.device("elsewhere", NOW, farm_id=other, **tagged)
    rows.device("other-model", NOW, device_model="esp32-cam", **tagged)
    rows.device("has-it", NOW, firmware_version=VERSION, **tagged)
    rows.device("gone", NOW, decommissioned_at=NOW, **tagged)
    rows.device("dead", BEFORE, **tagged)
    for number, device_id in enumerate(
        ("offered", "untagged", "elsewhere", "other-model", "has-it", "gone", "dead")
    ):
        rows.report(device_id, UPDATED, number + 1)
    rows.report("old-1", UPDATED, 20)
    found = measured(rows)
    assert found is not None
    assert (found.control.devices, found.control.readings) == (1, 20)
    assert found.control.gap_rate == pytest.approx(9 / 29)
    rows.connection.execute("UPDATE devices SET decommissioned_at = %s WHERE id = 'old-1'", [NOW])
    later = measured(rows)
    assert later is not None
    assert (later.control.devices, later.control.readings) == (1, 1), "offered, not updated"


def test_rule_2_a_model_is_known_by_the_model_version(rows: Rows) -> None:
    rollout = rows.rollout(rows.release("m-20261128-abc", "model"))
    rows.device("new-1", NOW, model_version="m-20261128-abc")
    rows.device("old-1", NOW, model_version="m-20261101-abc")
    rows.device("has-it", NOW, model_version="m-20261128-abc")
    rows.deploy(rollout, "new-1", "already-installed", UPDATED)
    for device_id in ("new-1", "old-1", "has-it"):
        rows.report(device_id, UPDATED, 30)
    rows.predict("new-1", UPDATED + timedelta(minutes=1), 0.4)
    rows.predict("old-1", UPDATED + timedelta(minutes=1), 0.9)
    rows.predict("old-1", BEFORE, 0.1)
    found = measured(rows)
    assert found is not None
    assert found.control.devices == 1
    assert found.updated.inference_confidence == pytest.approx(0.4)
    assert found.control.inference_confidence == pytest.approx(0.9)


def test_rule_2_both_sides_saw_the_same_hours(rows: Rows) -> None:
    rollout = rows.rollout(rows.release())
    begins = [BEFORE, UPDATED]
    for number, at in enumerate(begins):
        rows.device(f"new-{number}", NOW)
        rows.deploy(rollout, f"new-{number}", "success", at, confirmed_at=at)
        rows.report(f"new-{number}", BEFORE, 290)
        rows.device(f"old-{number}", NOW)
        rows.report(f"old-{number}", BEFORE, 290)
    found = measured(rows)
    assert found is not None
    assert (found.updated.readings, found.control.readings) == (310, 310)
    assert (found.updated.devices, found.control.devices) == (2, 2)
    assert found.window_s == 5 * 3600


def test_rule_3_the_window_is_bounded(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = rows.rollout(rows.release())
    long_ago = NOW - timedelta(days=3)
    for number in range(5):
        rows.device(f"new-{number}", NOW)
        rows.device(f"old-{number}", NOW)
        rows.deploy(rollout, f"new-{number}", "success", long_ago, confirmed_at=long_ago)
        rows.report(f"new-{number}", long_ago, 5)
        rows.report(f"new-{number}", UPDATED, 2)
    monkeypatch.setattr(source, "DEVICES", 3)
    found = measured(rows)
    assert found is not None
    assert found.window_s == 86_400
    assert (found.updated.devices, found.updated.readings) == (3, 6)
    assert found.control.devices == 3


def test_rule_4_the_ranges_are_those_of_silver(rows: Rows) -> None:
    rows.device("soil-1", NOW)
    given = [GOOD, {}] + [
        {**GOOD, name: value}
        for name, (low, high) in RANGES.items()
        for value in (low, high, low - 0.5, high + 0.5)
    ]
    for number, sensors in enumerate(given):
        rows.read("soil-1", NOW + timedelta(seconds=number), sensors)
    flagged = rows.connection.execute(
        f"SELECT coalesce({VIOLATES}, false) FROM telemetry_hot ORDER BY time".encode()
    ).fetchall()
    frame = pl.DataFrame(
        [{name: sensors.get(name) for name in RANGES} for sensors in given],
        schema=dict.fromkeys(RANGES, pl.Float64()),
    ).with_columns(clock_suspect=pl.lit(False))
    named = frame.select(quality=quality())["quality"]
    assert [row[0] for row in flagged] == [bool(names) for names in named]
    assert sum(row[0] for row in flagged) == 2 * len(RANGES)


def test_counters_and_batteries(rows: Rows) -> None:
    begin(rows)
    rows.connection.execute("DELETE FROM telemetry_hot WHERE device_id = 'new-1'")
    start = NOW - timedelta(hours=9)
    rows.connection.execute("UPDATE deployments SET confirmed_at = %s", [start])
    rows.connection.execute("UPDATE devices SET report_interval_s = NULL")
    for number, seq in enumerate((7, 8, 11, 1)):  # two skipped, then reset
        volts = 4.0 - 0.2 * number
        rows.read("new-1", start + timedelta(hours=2 * number), {"battery_voltage": volts}, seq)
    rows.read("new-1", start + timedelta(hours=4, minutes=1), {"battery_voltage": 99.0}, 12)
    found = measured(rows)
    assert found is not None
    assert found.updated.gap_rate == pytest.approx(2 / 7)
    assert found.updated.battery_drop_v_per_day == pytest.approx(2.4)
    assert found.updated.range_violation_rate == pytest.approx(1 / 5)


def test_only_what_runs(rows: Rows) -> None:
    release = rows.release()
    for state in ("created", "paused", "finished", "aborted"):
        rollout = rows.rollout(release, state=state)
        rows.connection.execute("UPDATE rollouts SET state = 'aborted' WHERE id = %s", [rollout])
    assert running_rollouts(rows.connection) == []
    wanted = rows.rollout(release)
    [found] = running_rollouts(rows.connection)
    assert (found.id, found.title) == (wanted, f"app {VERSION} on esp32-s3")
