"""Kills, restarts and outages under load: nothing lost, nothing doubled.

What counts as published is what the broker has acknowledged.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.ingest.conftest import DEVICES, IngestProcess, register
from tests.ingest.devices import PublishingDevice
from tests.ingest.messages import telemetry, topic
from tests.servers import MosquittoServer, PostgresServer
from tests.waiting import wait_until

pytestmark = pytest.mark.fault

BURST = 50
PAUSE_S = 0.02
DEADLINE_S = 60.0


@contextmanager
def load(server: MosquittoServer) -> Iterator[set[str]]:
    """Some thousand readings a second from all devices while the block runs.

    Yields the set of ids that are published; complete once the block has ended.
    """
    published: set[str] = set()
    stopping = threading.Event()
    devices = [PublishingDevice(server, device_id) for device_id in DEVICES]

    def publish(device: PublishingDevice, device_id: str) -> None:
        with device:
            while not stopping.wait(PAUSE_S):
                for _ in range(BURST):
                    message_id = str(uuid.uuid4())
                    payload = telemetry(
                        message_id=message_id, device_id=device_id, timestamp=time.time()
                    )
                    device.publish(topic(device_id=device_id), payload, message_id)
            device.flush()

    threads = [
        threading.Thread(target=publish, args=pair) for pair in zip(devices, DEVICES, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield published
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        for device in devices:
            published |= device.acknowledged


def assert_stored_once(connect: Callable[[], psycopg.Connection], published: set[str]) -> None:
    """All that was published is in telemetry_hot, once, and in the outbox."""
    assert len(published) > 1_000
    deadline = time.monotonic() + DEADLINE_S
    with connect() as connection:
        while True:
            rows = connection.execute("SELECT message_id::text FROM telemetry_hot").fetchall()
            stored = [message_id for (message_id,) in rows]
            lost = published - set(stored)
            if not lost or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        archived = connection.execute(
            "SELECT count(DISTINCT convert_from(payload, 'UTF8')::jsonb->>'message_id')"
            " FROM raw_messages"
        ).fetchone()
        counted = connection.execute("SELECT sum(stored)::int FROM ledger").fetchone()
    assert lost == set()
    assert len(stored) == len(set(stored))
    assert set(stored) == published
    assert archived == counted == (len(published),)


@pytest.mark.parametrize("end", [IngestProcess.kill, IngestProcess.stop])
def test_kill_and_stop_of_ingest(
    ops_url: str,
    fleet_broker: MosquittoServer,
    ingest: IngestProcess,
    end: Callable[[IngestProcess], None],
) -> None:
    with load(fleet_broker) as published:
        for _ in range(4):
            time.sleep(0.7)
            end(ingest)
            ingest.start()
    assert_stored_once(lambda: psycopg.connect(ops_url), published)


def test_kill_of_one_of_two_workers(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    second = IngestProcess(tmp_path, ops_url, fleet_broker, ZENTHOS_INGEST_WORKER_ID="2")
    second.start()
    try:
        with load(fleet_broker) as published:
            for _ in range(3):
                time.sleep(0.7)
                second.kill()
                time.sleep(0.3)
                second.start()
        assert_stored_once(lambda: psycopg.connect(ops_url), published)
        for worker in (ingest, second):
            assert "messages_ingested_total{" in worker.get("/metrics")[1]
    finally:
        second.stop()


@pytest.fixture
def own_ingest(
    tmp_path: Path, own_ops_url: str, fleet_broker: MosquittoServer
) -> Iterator[IngestProcess]:
    """The service on a Postgres of the test's own."""
    with psycopg.connect(own_ops_url) as connection:
        register(connection, *DEVICES)
    process = IngestProcess(tmp_path, own_ops_url, fleet_broker)
    process.start()
    yield process
    process.stop()


@pytest.mark.parametrize("stop", [PostgresServer.stop, PostgresServer.kill])
def test_restart_of_postgres(
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    own_ingest: IngestProcess,
    stop: Callable[[PostgresServer], None],
) -> None:
    with load(fleet_broker) as published:
        for _ in range(2):
            time.sleep(1)
            stop(own_postgres)
            time.sleep(0.5)
            own_postgres.start()
        time.sleep(0.5)
    assert_stored_once(lambda: psycopg.connect(own_ops_url), published)
    wait_until(own_ingest.is_ready)


def test_a_stop_while_postgres_is_away_loses_nothing(
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    own_ingest: IngestProcess,
) -> None:
    with load(fleet_broker) as published:
        time.sleep(0.5)
        own_postgres.stop()
        time.sleep(0.5)
        own_ingest.stop()
    own_postgres.start()
    own_ingest.start()
    assert_stored_once(lambda: psycopg.connect(own_ops_url), published)


def test_a_locked_table_loses_nothing(
    ops_url: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    with load(fleet_broker) as published:
        time.sleep(0.5)
        with psycopg.connect(ops_url) as holder:
            holder.execute("LOCK TABLE telemetry_hot IN ACCESS EXCLUSIVE MODE")
            time.sleep(2)
    assert_stored_once(lambda: psycopg.connect(ops_url), published)


def test_restart_of_the_broker(
    ops_url: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    with load(fleet_broker) as published:
        for _ in range(2):
            time.sleep(1)
            fleet_broker.restart()
        time.sleep(1)
    assert_stored_once(lambda: psycopg.connect(ops_url), published)
