"""Outages, kills and restarts under load: every committed message arrives, in order.

In order once repeated ones are taken out: a batch whose confirmation was lost is sent again.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.forward.admin import forwarder_states
from ingest.forward.forwarder import Forwarder
from ingest.forward.rabbitmq import RabbitMq
from ingest.forward.redis_streams import RedisStream
from tests.ingest.conftest import IngestProcess
from tests.ingest.forward.conftest import Outbox, delete_queues, queue_ids, stream_ids, unique
from tests.ingest.test_faults import load
from tests.servers import MosquittoServer, PostgresServer, RabbitServer, RedisServer
from tests.waiting import wait_until

pytestmark = pytest.mark.fault

Start = Callable[[Forwarder], None]
PAUSE_S = 0.05


@pytest.fixture(autouse=True)
def _empty_queue(rabbitmq: RabbitServer) -> None:
    delete_queues(rabbitmq.url)


@contextmanager
def commits(outbox: Outbox) -> Iterator[list[int]]:
    """Two writers that commit some thousand messages a second while the block runs.

    Yields the number of messages of each transaction committed so far.
    """
    committed: list[int] = []
    stopping = threading.Event()

    def write(size: int) -> None:
        with outbox.connect() as connection:
            while not stopping.wait(PAUSE_S):
                with connection.transaction():
                    outbox.insert(connection, size)
                committed.append(size)

    writers = [threading.Thread(target=write, args=[size]) for size in (20, 45)]
    for writer in writers:
        writer.start()
    try:
        yield committed
    finally:
        stopping.set()
        for writer in writers:
            writer.join()


def wait_for_commits(committed: list[int], count: int = 10) -> None:
    """Until so many more transactions have been committed: the outage does not hold them up."""
    target = len(committed) + count
    wait_until(lambda: len(committed) >= target)


def test_rabbitmq_away_from_the_start_and_killed_under_load(
    rabbitmq: RabbitServer,
    outbox: Outbox,
    start: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ingest.forward")
    rabbitmq.kill()
    start(outbox.forwarder("rabbitmq", RabbitMq(rabbitmq.url, 5)))
    with commits(outbox) as committed:
        wait_for_commits(committed)
        for _ in range(2):
            rabbitmq.start()
            wait_for_commits(committed)
            before = outbox.cursor("rabbitmq")
            wait_until(lambda before=before: outbox.cursor("rabbitmq") != before)
            rabbitmq.kill()
            wait_for_commits(committed)
        rabbitmq.start()
        wait_for_commits(committed)
    wait_until(lambda: outbox.cursor("rabbitmq") == (sum(committed),))
    assert unique(queue_ids(rabbitmq.url, sum(committed))) == outbox.in_order()
    told = [r.levelname for r in caplog.records if r.name == "ingest.forward.forwarder"]
    assert told == ["INFO", *["WARNING", "INFO"] * 3]  # one of each an outage


def test_redis_away_from_the_start_and_killed_under_load(
    redis_server: RedisServer, outbox: Outbox, start: Start
) -> None:
    redis_server.kill()
    start(outbox.forwarder("redis", RedisStream(redis_server.url, 100_000)))
    with commits(outbox) as committed:
        wait_for_commits(committed)
        for _ in range(3):
            redis_server.start()
            wait_for_commits(committed)
            before = outbox.cursor("redis")
            wait_until(lambda before=before: outbox.cursor("redis") != before)
            redis_server.kill()
            wait_for_commits(committed)
        redis_server.start()
    wait_until(lambda: outbox.cursor("redis") == (sum(committed),))
    assert unique(stream_ids(redis_server)) == outbox.in_order()


@pytest.mark.parametrize("stop", [PostgresServer.stop, PostgresServer.kill])
def test_restart_of_postgres(
    own_postgres: PostgresServer,
    own_ops_url: str,
    redis_server: RedisServer,
    stop: Callable[[PostgresServer], None],
) -> None:
    outbox = Outbox(own_ops_url)
    forwarder = outbox.forwarder("redis", RedisStream(redis_server.url, 100_000))
    forwarder.start()
    try:
        wait_until(lambda: outbox.cursor("redis"))
        for _ in range(3):
            outbox.commit(3_000)
            stop(own_postgres)
            own_postgres.start()
        outbox.commit(10)
        wait_until(lambda: outbox.cursor("redis") == (9_010,))
    finally:
        forwarder.stop()
    assert unique(stream_ids(redis_server)) == outbox.in_order()


@pytest.mark.parametrize("sink", ["rabbitmq", "redis"])
def test_a_stop_does_not_wait_for_a_frozen_server(
    sink: str, rabbitmq: RabbitServer, redis_server: RedisServer, outbox: Outbox, start: Start
) -> None:
    server = rabbitmq if sink == "rabbitmq" else redis_server
    forwarder = outbox.forwarder(
        sink,
        RabbitMq(rabbitmq.url, 5) if sink == "rabbitmq" else RedisStream(redis_server.url, 10_000),
    )
    start(forwarder)
    outbox.commit(1)
    wait_until(lambda: outbox.cursor(sink) == (1,))
    server.pause()
    try:
        outbox.commit(100)
        time.sleep(0.5)
        began = time.monotonic()
        forwarder.stop()
        assert time.monotonic() - began < 15
        assert outbox.cursor(sink) == (1,)
    finally:
        server.resume()


def stored_count(outbox: Outbox) -> int:
    return int(str(outbox.query("SELECT count(*) FROM telemetry_hot")[0][0]))


def forwarded_all(outbox: Outbox, name: str) -> bool:
    """Whether nothing waits for a forwarder."""
    with outbox.connect() as connection:
        return [s.waiting for s in forwarder_states(connection) if s.name == name] == [0]


@pytest.mark.usefixtures("database")
def test_ingest_forwards_and_goes_on_without_the_others(
    tmp_path: Path,
    outbox: Outbox,
    fleet_broker: MosquittoServer,
    rabbitmq: RabbitServer,
    redis_server: RedisServer,
) -> None:
    """The whole way from devices; RabbitMQ, Redis and ingest itself are killed."""
    ingest = IngestProcess(
        tmp_path,
        outbox.url,
        fleet_broker,
        ZENTHOS_FORWARD_AMQP_URL=rabbitmq.url,
        ZENTHOS_FORWARD_REDIS_URL=redis_server.url,
    )
    ingest.start()
    try:
        wait_until(lambda: outbox.cursor("rabbitmq") and outbox.cursor("redis"))
        with load(fleet_broker) as published:
            time.sleep(1)
            rabbitmq.kill()
            redis_server.kill()
            time.sleep(1)
            wait_until(ingest.is_ready)
            stored = stored_count(outbox)
            wait_until(lambda: stored_count(outbox) > stored + 500)
            ingest.kill()
            redis_server.start()
            ingest.start()
        rabbitmq.start()
        wait_until(lambda: stored_count(outbox) == len(published))
        order = outbox.in_order()
        for name in ("rabbitmq", "redis"):
            wait_until(lambda name=name: forwarded_all(outbox, name))
        assert unique(stream_ids(redis_server)) == unique(order)
        assert unique(queue_ids(rabbitmq.url, len(published))) == unique(order)
        assert published == set(order)
        metrics = ingest.get("/metrics")[1]
        for name in ("rabbitmq", "redis"):
            assert re.search(rf'_forward_up{{forwarder="{name}",.*}} 1.0', metrics)
            assert re.search(rf'_forward_lag_s{{forwarder="{name}",.*}} 0.0', metrics)
            assert re.search(rf'_forwarded_total{{forwarder="{name}",.*}} [1-9]', metrics)
    finally:
        ingest.stop()
    assert "rabbitmq waits, nothing is lost" in ingest.log.read_text()
