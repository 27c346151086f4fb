"""What a batch leaves in a real Postgres."""

import threading
import uuid
from datetime import UTC, datetime
from functools import partial

import psycopg
import pytest

from ingest.batch import DAY_S, build_batch
from ingest.decode import Registry
from ingest.metrics import IngestMetrics
from ingest.registry import DeviceRegistry
from ingest.retry import Patience
from ingest.store import Store, Work
from ingest.writer import Outcome, Writer
from tests.ingest.conftest import DEVICES, HOT_DAYS, Write, register
from tests.ingest.messages import (
    DEVICE,
    FARM,
    NOW,
    SENSORS,
    inference,
    log,
    publish,
    status,
    telemetry,
    topic,
)
from zenthos_core.database import connect
from zenthos_core.mqtt import Publish


def one(database: psycopg.Connection, query: str) -> tuple[object, ...]:
    row = database.execute(query).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row


def test_every_column_of_a_reading_arrives(database: psycopg.Connection, write: Write) -> None:
    message_id = uuid.uuid4()
    sensors = SENSORS | {"rainfall_mm": 0.5}
    fields = {"signal_strength": -70, "seq": 2**40, "model_version": "m-1", "backlog": True}
    write(publish(telemetry(message_id=str(message_id), sensors=sensors, **fields)))
    assert one(database, "SELECT * FROM telemetry_hot") == (
        datetime.fromtimestamp(NOW - 5, UTC),
        message_id,
        DEVICE,
        FARM,
        *SENSORS.values(),
        -70.0,
        "v1.2.3",
        "m-1",
        2**40,
        datetime.fromtimestamp(NOW, UTC),
        False,
        True,
        {"rainfall_mm": 0.5},
    )


def test_missing_values_are_null(database: psycopg.Connection, write: Write) -> None:
    write(publish(telemetry(sensors={}, firmware_version=...)))
    values = "temperature, signal_strength, firmware_version, seq, extra"
    assert one(database, f"SELECT {values} FROM telemetry_hot") == (None,) * 5


def test_the_outbox_holds_the_bytes_as_they_arrived(
    database: psycopg.Connection, write: Write
) -> None:
    payload = telemetry() + b" \n"
    write(Publish(topic(), payload, NOW + 0.25, 7, 0x3B))
    assert one(
        database,
        "SELECT message_type, topic, payload, received_at, qos, retain, redelivered"
        " FROM raw_messages",
    ) == (
        "telemetry",
        topic().decode(),
        payload,
        datetime.fromtimestamp(NOW + 0.25, UTC),
        1,
        True,
        True,
    )


def test_a_prediction_is_stored_once(database: psycopg.Connection, write: Write) -> None:
    message = publish(inference(), topic("inference"))
    assert write(message) == Outcome(stored=1)
    assert write(message) == Outcome(duplicate=1)
    assert one(database, "SELECT result, confidence, features FROM inference_results") == (
        {"class": "irrigate"},
        0.75,
        [1.0, 2.5],
    )


@pytest.mark.parametrize("features", [None, [], [0.0]])
def test_features_may_be_missing_or_empty(
    database: psycopg.Connection, write: Write, features: list[float] | None
) -> None:
    write(publish(inference(features=features), topic("inference")))
    assert one(database, "SELECT features FROM inference_results") == (features,)


@pytest.mark.parametrize("timestamp", [NOW - 5, NOW + 60, NOW + 605, 0, ...])
def test_a_message_that_comes_again_later_is_a_duplicate(
    database: psycopg.Connection, write: Write, timestamp: float
) -> None:
    payload = telemetry(timestamp=timestamp)
    assert write(publish(payload)).stored == 1
    assert write(publish(payload, received_at=NOW + 30)) == Outcome(duplicate=1)
    assert one(database, "SELECT count(*) FROM telemetry_hot") == (1,)
    assert one(database, "SELECT count(*) FROM raw_messages") == (2,)


def test_the_ledger_adds_up_by_day_and_device(database: psycopg.Connection, write: Write) -> None:
    first, other = telemetry(), telemetry(device_id="field-02")
    write(publish(first), publish(first), publish(b"{"), publish(log(), topic("logs")))
    write(publish(first), publish(other, topic(device_id="field-02")), publish(b"", b"nowhere"))
    write(publish(telemetry(timestamp=NOW), received_at=NOW + DAY_S))
    day = datetime.fromtimestamp(NOW, UTC).date()
    ledger = "SELECT day, device_id, stored, duplicate, quarantined FROM ledger ORDER BY 1, 2"
    assert database.execute(ledger).fetchall() == [
        (day, "", 0, 0, 1),
        (day, DEVICE, 2, 2, 1),
        (day, "field-02", 1, 0, 0),
        (datetime.fromtimestamp(NOW + DAY_S, UTC).date(), DEVICE, 1, 0, 0),
    ]


def test_a_late_reading_moves_nothing_but_last_seen(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(telemetry(timestamp=NOW - 10, firmware_version="v2.0.0", signal_strength=-60)))
    late = telemetry(timestamp=NOW - 20, sensors=SENSORS | {"battery_voltage": 3.0})
    write(publish(late, received_at=NOW + 1))
    write(publish(telemetry(timestamp=NOW, backlog=True), received_at=NOW + 2))
    state = "last_seen, last_reading, battery_voltage, firmware_version, signal_strength"
    assert one(database, f"SELECT {state} FROM devices WHERE id = '{DEVICE}'") == (
        datetime.fromtimestamp(NOW + 2, UTC),
        datetime.fromtimestamp(NOW - 10, UTC),
        3.9,
        "v2.0.0",
        -60.0,
    )


def test_a_reading_without_a_value_keeps_the_last_one(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(telemetry(timestamp=NOW - 10)))
    write(publish(telemetry(timestamp=NOW - 5, sensors={}, firmware_version=...)))
    state = "SELECT battery_voltage, firmware_version FROM devices WHERE last_seen IS NOT NULL"
    assert one(database, state) == (3.9, "v1.2.3")


def test_a_status_moves_the_devices_state(database: psycopg.Connection, write: Write) -> None:
    write(publish(status(free_heap_bytes=2**33, reset_reason="watchdog"), topic("status")))
    write(publish(status(status="offline", uptime_seconds=..., boot_count=...), topic("status")))
    state = "status, uptime_seconds, free_heap_bytes, boot_count, reset_reason"
    assert one(database, f"SELECT {state} FROM devices WHERE id = '{DEVICE}'") == (
        *("offline", 12.0, 2**33, 3, "watchdog"),
    )


def test_each_status_of_a_batch_moves_the_devices_state(
    database: psycopg.Connection, write: Write
) -> None:
    will = status(status="offline", uptime_seconds=..., boot_count=...)
    write(publish(status(reset_reason="watchdog"), topic("status")), publish(will, topic("status")))
    state = "status, uptime_seconds, boot_count, reset_reason"
    assert one(database, f"SELECT {state} FROM devices WHERE id = '{DEVICE}'") == (
        *("offline", 12.0, 3, "watchdog"),
    )


@pytest.mark.parametrize("received_at", [NOW, NOW // DAY_S * DAY_S - 2**-22])
def test_a_reading_a_moment_before_midnight_is_stored(
    database: psycopg.Connection, write: Write, received_at: float
) -> None:
    midnight = NOW // DAY_S * DAY_S
    moment = publish(telemetry(timestamp=midnight - 2**-22), received_at=received_at)
    assert write(moment) == Outcome(stored=1)
    assert one(database, "SELECT time FROM telemetry_hot") == (
        datetime.fromtimestamp(midnight, UTC),
    )


@pytest.mark.parametrize("timestamp", [NOW - 5, NOW + 5, ...])
def test_the_same_message_id_of_another_device_is_stored(
    database: psycopg.Connection, write: Write, timestamp: float
) -> None:
    reading = {"message_id": str(uuid.uuid4()), "timestamp": timestamp}
    assert write(publish(telemetry(**reading))).stored == 1
    other = publish(telemetry(**reading, device_id="field-02"), topic(device_id="field-02"))
    assert write(other) == Outcome(stored=1)
    assert write(other) == Outcome(duplicate=1)


def test_a_partition_that_was_dropped_is_made_anew(
    database: psycopg.Connection, write: Write
) -> None:
    write(publish(telemetry()))
    hour = datetime.fromtimestamp(NOW, UTC)
    database.execute(f"DROP TABLE raw_messages_{hour:%Y%m%d%H}")
    database.execute(f"DROP TABLE telemetry_hot_{hour:%Y%m%d}")
    assert write(publish(telemetry())).stored == 1
    assert one(database, "SELECT count(*) FROM raw_messages") == (1,)


def test_a_new_partition_waits_for_no_reader(
    database: psycopg.Connection, ops_url: str, write: Write
) -> None:
    with psycopg.connect(ops_url) as archive:
        archive.execute("SELECT count(*) FROM raw_messages")
        write(publish(telemetry(), received_at=NOW + 3_600))
    assert one(database, "SELECT count(*) FROM raw_messages") == (1,)


def test_two_workers_make_the_same_partitions(
    database: psycopg.Connection, ops_url: str, registry: Registry
) -> None:
    gate = threading.Barrier(4)
    outcomes: list[Outcome] = []

    def work(number: int) -> None:
        with connect(ops_url, application="test", autocommit=True) as connection:
            writer = Writer(connection, "1")
            for hour in range(5):
                batch = build_batch(
                    [
                        publish(telemetry(device_id=d), topic(device_id=d))
                        for d in (DEVICES if number % 2 else reversed(DEVICES))
                    ],
                    registry,
                    HOT_DAYS,
                )
                gate.wait()
                outcomes.append(writer.write(batch, [NOW + 3_600 * hour]))

    threads = [threading.Thread(target=work, args=[n]) for n in range(gate.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome(len(DEVICES))] * 20


def test_what_the_database_refuses_is_found_and_set_aside(
    database: psycopg.Connection, ops_url: str, registry: Registry
) -> None:
    database.execute("ALTER TABLE telemetry_hot ADD CHECK (temperature <> 99)")
    poison = publish(telemetry(sensors=SENSORS | {"temperature": 99}), packet_id=3)
    messages = [publish(telemetry(), packet_id=n) for n in range(1, 7) if n != 3]
    messages.insert(2, poison)
    stored: list[int] = []
    store = Store(
        partial(connect, ops_url, application="test", autocommit=True),
        Patience(threading.Event()),
        worker_id="1",
        hot_days=HOT_DAYS,
        metrics=IngestMetrics(),
    )
    work = Work(messages, build_batch(messages, registry, HOT_DAYS))
    store.store(work, registry, lambda part, _: stored.extend(m.packet_id for m in part.messages))
    store.close()
    assert stored == [1, 2, 3, 4, 5, 6]
    assert one(database, "SELECT count(*) FROM telemetry_hot") == (5,)
    reason, detail, payload = one(database, "SELECT reason, detail, payload FROM quarantine")
    assert (reason, payload) == ("database_refused", poison.payload)
    assert str(detail).startswith("23514: ")


def test_the_registry_finds_a_device_registered_just_now(
    database: psycopg.Connection, ops_url: str
) -> None:
    registry = DeviceRegistry(partial(connect, ops_url, application="test", autocommit=True))
    assert set(registry.refresh()) == set(DEVICES)
    register(database, "field-04")
    assert set(registry.refresh(["field-04", "stranger"])) == {*DEVICES, "field-04"}
    registry.close()
