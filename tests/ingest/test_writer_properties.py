"""What any split of any messages leaves in a real Postgres, against a model of the whole."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.batch import DAY_S, build_batch
from ingest.spool import Position
from ingest.writer import Outcome, Writer
from tests.ingest.messages import (
    DEVICE,
    NOW,
    REGISTRY,
    inference,
    log,
    publish,
    status,
    telemetry,
    topic,
)
from zenthos_core.database import connect
from zenthos_core.mqtt import Publish

HOT_DAYS = 7
TIMESTAMPS = (NOW - 5, NOW - 2 * DAY_S, NOW - 9 * DAY_S, 1e9, 2.5e9, ..., NOW + 60)
"""Now, days late, cold, in 2001, in 2049, none, a minute ahead."""


def everything() -> list[Publish]:
    """Each type under each clock, of two devices with the same ids, and one that is malformed."""
    kinds = {"telemetry": telemetry, "inference": inference, "status": status, "logs": log}
    messages = []
    for device_id, (kind, make), at in itertools.product(REGISTRY, kinds.items(), TIMESTAMPS):
        number = 16 * list(kinds).index(kind) + TIMESTAMPS.index(at)
        message_id = f"00000000-0000-4000-8000-{number:012x}"
        payload = make(message_id=message_id, device_id=device_id, timestamp=at)
        messages.append(publish(payload, topic(kind, device_id)))
    return [*messages, publish(b"{")]


POOL = everything()


@pytest.fixture
def writers(database: psycopg.Connection, ops_url: str) -> Iterator[list[Writer]]:
    """Two workers."""
    opened = [connect(ops_url, application="test", autocommit=True) for _ in range(2)]
    yield [Writer(connection, str(n)) for n, connection in enumerate(opened)]
    for connection in opened:
        connection.close()


def stored_rows(database: psycopg.Connection) -> dict[str, int]:
    tables = ("telemetry_hot", "inference_results", "device_status", "device_logs")
    tables += ("cold_messages", "raw_messages", "quarantine")
    return {
        table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables
    }


@given(
    st.lists(st.lists(st.integers(0, len(POOL) - 1), max_size=12), min_size=1, max_size=6),
    st.data(),
)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_split_over_two_workers_counts_each_message_once(
    database: psycopg.Connection,
    writers: list[Writer],
    batches: list[list[int]],
    data: st.DataObject,
) -> None:
    for table in (*stored_rows(database), "ledger", "ingest_spool"):
        database.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]
    outcomes = Counter[str]()
    for second, numbers in enumerate(batches):
        messages = [received(POOL[number], NOW + second) for number in numbers]
        batch = build_batch(messages, REGISTRY, HOT_DAYS)
        place = Position(1, second) if data.draw(st.booleans()) else None
        writer = writers[data.draw(st.integers(0, 1))]
        outcomes.update(writer.write(batch, {m.received_at for m in messages}, place)._asdict())
    sent = [number for numbers in batches for number in numbers]
    good = [number for number in sent if number != len(POOL) - 1]
    poison = len(sent) - len(good)
    assert outcomes == Counter(
        stored=len(set(good)),
        duplicate=len(good) - len(set(good)),
        quarantined=poison,
        rate_limited=0,
    )
    rows = stored_rows(database)
    assert rows.pop("raw_messages") == len(good)
    assert rows.pop("quarantine") == min(poison, 1)
    assert sum(rows.values()) == len(set(good))
    totals = "coalesce(sum(stored), 0), coalesce(sum(duplicate), 0), coalesce(sum(quarantined), 0)"
    assert database.execute(f"SELECT {totals} FROM ledger").fetchone() == (
        outcomes["stored"],
        outcomes["duplicate"],
        outcomes["quarantined"],
    )


def received(message: Publish, received_at: float) -> Publish:
    """The same message, received at another time."""
    return publish(message.payload, message.topic, received_at=received_at)


@pytest.mark.parametrize("at", [..., 1e9, 2.5e9, NOW + 60, NOW - 5, NOW - 9 * DAY_S])
def test_copies_that_two_workers_store_at_once_are_one(
    database: psycopg.Connection, writers: list[Writer], at: float
) -> None:
    rounds = 25
    payloads = [telemetry(timestamp=at) for _ in range(rounds)]
    gate = threading.Barrier(len(writers))
    outcomes: list[Outcome] = []

    def work(number: int) -> None:
        for payload in payloads:
            message = publish(payload, received_at=NOW + 0.001 * number)
            batch = build_batch([message], REGISTRY, HOT_DAYS)
            gate.wait()
            outcomes.append(writers[number].write(batch, [message.received_at]))

    threads = [threading.Thread(target=work, args=[n]) for n in range(len(writers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {Outcome(stored=1): rounds, Outcome(duplicate=1): rounds}
    where = "cold_messages" if at == NOW - 9 * DAY_S else "telemetry_hot"
    assert database.execute(f"SELECT count(*) FROM {where}").fetchone() == (rounds,)
    seen = "SELECT sum(stored)::int, sum(duplicate)::int FROM ledger WHERE device_id = %s"
    assert database.execute(seen, [DEVICE]).fetchone() == (rounds, rounds)
