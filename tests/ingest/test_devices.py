"""Rules of ingest/devices.py, in memory and as the database applies them."""

import uuid
from datetime import UTC, datetime

import psycopg
import pytest

from ingest.devices import ALIVE, DeviceChange
from tests.ingest.conftest import Write
from tests.ingest.messages import DEVICE, NOW, publish, status, telemetry, topic
from tests.ingest.test_writer import one
from zenthos_core.messages import Status, parse_payload


def said(**fields: object) -> Status:
    message = parse_payload("status", status(**fields))
    assert isinstance(message, Status)
    return message


@pytest.mark.parametrize(
    ("events", "presence"),
    [
        (["live"], ALIVE),
        (["late"], None),
        (["offline"], "offline"),
        (["offline", "live"], "online"),
        (["offline", "late"], "offline"),
        (["online", "offline"], "offline"),
        (["maintenance", "live"], "maintenance"),
        (["live", "offline"], "offline"),
    ],
)
def test_a_status_counts_in_order_of_arrival(events: list[str], presence: str | None) -> None:
    change = DeviceChange(NOW)
    for event in events:
        if event in {"live", "late"}:
            change.hear(live=event == "live")
        else:
            change.tell(said(status=event))
    assert change.presence == presence


def test_what_a_report_leaves_out_stays() -> None:
    change = DeviceChange(NOW)
    change.tell(said(boot_count=7, reset_reason="watchdog"))
    change.tell(said(status="offline", uptime_seconds=..., boot_count=8))
    assert change.report == {"uptime_seconds": 12, "boot_count": 8, "reset_reason": "watchdog"}


def state(database: psycopg.Connection, columns: str) -> tuple[object, ...]:
    return one(database, f"SELECT {columns} FROM devices WHERE id = '{DEVICE}'")


def reading(at: float, **fields: object) -> bytes:
    return telemetry(timestamp=at, **fields)


def test_a_live_reading_brings_a_device_online_and_its_will_takes_it_off(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(reading(NOW)))
    assert state(database, "status, status_at") == ("online", datetime.fromtimestamp(NOW, UTC))
    will = status(status="offline", timestamp=NOW - 86_400)
    write(publish(will, topic("status"), received_at=NOW + 10))
    assert state(database, "status") == ("offline",)
    write(publish(reading(NOW - 3_600, backlog=True), received_at=NOW + 20))
    assert state(database, "status") == ("offline",)
    write(publish(reading(NOW + 30), received_at=NOW + 30))
    assert state(database, "status") == ("online",)


def test_an_older_status_of_another_worker_changes_nothing(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(status(status="online"), topic("status"), received_at=NOW + 10))
    write(publish(status(status="offline"), topic("status"), received_at=NOW + 5))
    assert state(database, "status") == ("online",)


def test_a_status_older_than_the_hot_window_still_counts(
    database: psycopg.Connection, write: Write
) -> None:
    will = publish(status(status="offline", timestamp=NOW - 30 * 86_400), topic("status"))
    assert write(will).stored == 1
    assert write(will).duplicate == 1
    assert state(database, "status") == ("offline",)
    assert one(database, "SELECT count(*) FROM device_status") == (0,)


def test_the_interval_is_learned_and_a_pause_hardly_moves_it(
    database: psycopg.Connection, write: Write
) -> None:
    for minute in range(4):
        write(publish(reading(NOW + 60 * minute), received_at=NOW + 60 * minute))
    assert state(database, "observed_interval_s") == (pytest.approx(60),)
    write(publish(reading(NOW + 86_400), received_at=NOW + 86_400))
    assert state(database, "observed_interval_s") == (pytest.approx(72),)


def test_the_interval_of_several_readings_at_once_is_their_distance(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(reading(NOW)))
    write(*(publish(reading(NOW + 10 * n), received_at=NOW + 50) for n in range(1, 6)))
    assert state(database, "observed_interval_s") == (pytest.approx(10),)


SEQ_CASES = {
    "no gap": ([[0], [1], [2]], 0),
    "a gap": ([[0], [4]], 3),
    "a gap within a batch": ([[0], [1, 5]], 3),
    "a gap that is filled": ([[0], [4], [2], [1, 3]], 0),
    "out of order within a batch": ([[0], [3, 1, 2]], 0),
    "out of order between workers": ([[0], [2], [1], [4], [3]], 0),
    "the counter began anew": ([[7], [8], [0], [1], [3]], 1),
    "late from before the first": ([[10], [3]], 0),
}


@pytest.mark.parametrize("name", SEQ_CASES)
def test_missing_readings_are_counted(
    database: psycopg.Connection, write: Write, name: str
) -> None:
    batches, missing = SEQ_CASES[name]
    restarted = name == "the counter began anew"
    arrived = 0
    for batch in batches:
        messages = []
        for seq in batch:
            arrived += 1
            at = NOW - 60 + (arrived if restarted else seq)
            messages.append(publish(reading(at, seq=seq)))
        write(*messages)
    assert state(database, "missing_readings") == (missing,)


def test_a_reading_that_comes_twice_fills_one_gap(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(reading(NOW - 10, seq=0)))
    write(publish(reading(NOW - 5, seq=5)))
    filler = publish(reading(NOW - 8, seq=2, message_id=str(uuid.uuid4())))
    for _ in range(3):
        write(filler)
    assert state(database, "missing_readings") == (3,)


def test_a_limited_reading_is_not_missing(database: psycopg.Connection, write: Write) -> None:
    write(publish(reading(NOW - 10, seq=0)))
    outcome = write(*(publish(reading(NOW - 9 + n, seq=n)) for n in range(1, 6)), burst=3)
    assert outcome.rate_limited == 2
    assert state(database, "missing_readings, last_seq") == (0, 5)
