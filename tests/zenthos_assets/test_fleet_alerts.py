"""Rules of zenthos_assets/fleet_alerts.py, by number, on a real database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from tests.zenthos_assets.conftest import Farmyard
from zenthos_assets.fleet_alerts import KINDS, tick, watch_fleet
from zenthos_assets.resources import Platform
from zenthos_core.settings import Settings

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
SETTINGS = Settings()


class Fleet:
    """One device that is well, and what the alerts say of it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        connection.execute("INSERT INTO farms (name) VALUES ('north')")
        connection.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type, created_at)"
            " SELECT 'soil-1', id, 'esp32-s3', 'soil', '2026-01-01' FROM farms"
        )
        self.be(
            status="online",
            last_seen=NOW,
            last_reading=NOW,
            battery_voltage=3.9,
            checked_in_at=NOW,
            report_interval_s=60,
        )

    def be(self, **state: Any) -> None:
        """Change the device's current state."""
        for column, value in state.items():
            self.connection.execute(f"UPDATE devices SET {column} = %s".encode(), [value])

    def watch(self, now: datetime = NOW) -> list[str]:
        """Types of alerts that are open after a look at the fleet."""
        watch_fleet(self.connection, SETTINGS, now)
        rows = self.connection.execute(
            "SELECT alert_type FROM alerts WHERE resolved_at IS NULL ORDER BY alert_type"
        )
        return [row[0] for row in rows]

    def alerts(self) -> list[tuple[Any, ...]]:
        """Every alert there has been."""
        return self.connection.execute(
            "SELECT alert_type, resolved_by, occurrences FROM alerts ORDER BY created_at"
        ).fetchall()


@pytest.fixture
def fleet(ops_url: str) -> Iterator[Fleet]:
    """A device on an operational database of this test's own."""
    with psycopg.connect(ops_url, autocommit=True, options="-c timezone=UTC") as connection:
        yield Fleet(connection)


@pytest.mark.parametrize(
    ("silent", "interval_s", "status", "expected"),
    [
        (timedelta(minutes=59), 60, "offline", []),
        (timedelta(minutes=61), 60, "offline", ["offline"]),
        (timedelta(minutes=61), 60, "online", []),  # ingest was away, not the device
        (timedelta(minutes=61), None, "offline", ["offline"]),
        (timedelta(hours=2), 3600, "offline", []),
        (timedelta(hours=4), 3600, "offline", ["offline"]),
        (timedelta(days=9), 60, "maintenance", []),
    ],
)
def test_rule_1_offline(
    fleet: Fleet, silent: timedelta, interval_s: int | None, status: str, expected: list[str]
) -> None:
    fleet.be(status=status, last_seen=NOW - silent, report_interval_s=interval_s)
    assert fleet.watch() == expected
    fleet.be(status="online", last_seen=NOW)
    assert fleet.watch() == []


def test_rule_1_a_device_that_was_never_heard_of_is_not_offline(fleet: Fleet) -> None:
    fleet.be(status="unknown", last_seen=None)
    assert fleet.watch() == []


def test_rule_2_low_battery_is_over_a_little_above(fleet: Fleet) -> None:
    open_at = {3.35: [], 3.29: ["low_battery"], 3.38: ["low_battery"], 3.41: []}
    for volts, expected in open_at.items():
        fleet.be(battery_voltage=volts)
        assert fleet.watch() == expected, volts
    fleet.be(battery_voltage=None)
    assert fleet.watch() == []
    fleet.be(battery_voltage=-5)  # no battery has that
    assert fleet.watch() == []


def test_rule_3_update_silent_until_the_device_asks(fleet: Fleet) -> None:
    fleet.be(checked_in_at=NOW - timedelta(days=2))
    assert fleet.watch() == []
    fleet.be(checked_in_at=NOW - timedelta(days=4), status="offline")
    assert fleet.watch() == []
    fleet.be(status="online")
    assert fleet.watch() == ["update_silent"]
    fleet.be(status="offline")
    assert fleet.watch() == ["update_silent"]
    fleet.be(checked_in_at=NOW)
    assert fleet.watch() == []


def test_rule_3_asking_for_models_is_not_asking_for_firmware(fleet: Fleet) -> None:
    fleet.be(checked_in_at=NOW - timedelta(days=4), model_checked_in_at=NOW)
    assert fleet.watch() == ["update_silent"]
    fleet.be(checked_in_at=None)  # it takes nothing else
    assert fleet.watch() == []


def test_rule_3_a_device_that_never_asked(fleet: Fleet) -> None:
    fleet.be(checked_in_at=None)
    assert fleet.watch() == ["update_silent"]
    [message] = fleet.connection.execute("SELECT message FROM alerts").fetchone() or [""]
    assert "soil-1 sends data and has never asked for an update" in message


def test_rule_5_once_and_resolved_by_the_system(fleet: Fleet) -> None:
    fleet.be(battery_voltage=3.0)
    fleet.watch()
    fleet.watch(NOW + timedelta(minutes=1))
    assert fleet.alerts() == [("low_battery", None, 1)]
    fleet.connection.execute("UPDATE alerts SET resolved_at = now(), resolved_by = 'ada'")
    fleet.watch(NOW + timedelta(minutes=2))
    assert fleet.alerts() == [("low_battery", "ada", 1), ("low_battery", None, 1)]
    fleet.be(decommissioned_at=NOW)
    assert fleet.watch() == []
    assert fleet.alerts()[-1] == ("low_battery", "system", 1)
    assert fleet.watch() == []


def test_every_alert_says_what_to_do_and_why(fleet: Fleet) -> None:
    fleet.be(
        status="offline", last_seen=NOW - timedelta(days=1), battery_voltage=1, checked_in_at=None
    )
    fleet.watch()
    fleet.be(status="online")
    fleet.watch()
    rows = fleet.connection.execute(
        "SELECT alert_type, severity, subject, device_id, farm_id, message, evidence FROM alerts"
    ).fetchall()
    assert {row[0] for row in rows} == {kind.alert_type for kind in KINDS}
    for _, severity, subject, device_id, farm_id, message, evidence in rows:
        assert (severity, subject, device_id) == ("warning", "device soil-1", "soil-1")
        assert farm_id is not None
        assert ": " in message
        assert evidence


def test_the_sensor(farmyard: Farmyard) -> None:
    farmyard.execute("UPDATE devices SET status = 'online', battery_voltage = 3.1")

    def look(platform: Platform) -> str:
        context = dg.build_sensor_context(resources={"platform": platform})
        return str(tick(context, platform, NOW.timestamp).skip_message)

    assert look(farmyard.platform) == "low_battery: 2 raised, 0 resolved"
    assert look(farmyard.platform) == "nothing has changed"
    file = farmyard.platform.directory
    assert file is not None
    with (farmyard.store.root.parent / ".env").open("a") as env:
        env.write("ZENTHOS_DATABASE_URL=postgresql://zenthos@127.0.0.1:1/none\n")
    assert "is it up?" in look(Platform(directory=file))
