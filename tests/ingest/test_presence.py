"""Silent devices are called offline, by their own interval, and only while we listen."""

from datetime import UTC, datetime

import psycopg
import pytest

from ingest.presence import mark_silent, read_fleet
from tests.ingest.conftest import Write
from tests.ingest.messages import DEVICE, NOW, publish, telemetry, topic
from zenthos_core.ledger import Ledger

HOUR = 3_600.0


def speak(write: Write, interval_s: float, count: int = 3, device_id: str = DEVICE) -> None:
    for n in range(count):
        at = NOW + n * interval_s
        reading = telemetry(device_id=device_id, timestamp=at)
        write(publish(reading, topic(device_id=device_id), received_at=at))


def silent(database: psycopg.Connection, after_s: float, listening_since: float = 0) -> list[str]:
    return mark_silent(database, now=NOW + after_s, listening_since=listening_since)


@pytest.mark.parametrize(
    ("interval_s", "silence_s"),
    [(1, 60), (60, 180), (3_600, 10_800)],
    ids=["at least a minute", "three minutes", "three hours"],
)
def test_three_missed_reports_are_silence(
    database: psycopg.Connection, write: Write, interval_s: float, silence_s: float
) -> None:
    speak(write, interval_s)
    last = 2 * interval_s
    assert silent(database, last + silence_s - 1) == []
    assert silent(database, last + silence_s + 1) == [DEVICE]
    assert silent(database, last + silence_s + 2) == []
    row = database.execute("SELECT status, status_at FROM devices WHERE id = %s", [DEVICE])
    assert row.fetchone() == (
        "offline",
        datetime.fromtimestamp(NOW + last + silence_s + 1, UTC),
    )


def test_the_registered_interval_counts_before_the_observed_one(
    database: psycopg.Connection, write: Write
) -> None:
    speak(write, 1)
    database.execute("UPDATE devices SET report_interval_s = 3600 WHERE id = %s", [DEVICE])
    assert silent(database, HOUR) == []
    assert silent(database, 4 * HOUR) == [DEVICE]


def test_after_an_outage_of_ours_silence_begins_anew(
    database: psycopg.Connection, write: Write
) -> None:
    speak(write, 60)
    assert silent(database, HOUR, listening_since=NOW + HOUR - 100) == []
    assert silent(database, HOUR, listening_since=NOW + HOUR - 181) == [DEVICE]


def test_a_device_in_maintenance_may_be_silent(database: psycopg.Connection, write: Write) -> None:
    speak(write, 60)
    database.execute("UPDATE devices SET status = 'maintenance' WHERE id = %s", [DEVICE])
    assert silent(database, 10 * HOUR) == []


def test_the_fleet_is_counted(database: psycopg.Connection, write: Write) -> None:
    speak(write, 60)
    speak(write, 60, device_id="field-02")
    database.execute("UPDATE devices SET missing_readings = 4 WHERE id = %s", [DEVICE])
    fleet = read_fleet(database, NOW)
    assert (fleet.online, fleet.missing_readings) == (2, 4)
    assert fleet.today == Ledger(stored=6)
    assert read_fleet(database, NOW + 24 * HOUR).today == Ledger()
