"""An outbox to commit to, and what arrives on the other side."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import aio_pika
import msgspec
import psycopg
import pytest
import redis

from ingest.forward.forwarder import Forwarder
from ingest.forward.metrics import ForwardMetrics
from ingest.forward.rabbitmq import EXCHANGE, QUEUES
from ingest.forward.redis_streams import STREAM
from ingest.forward.sink import Sink
from ingest.partitions import Partitions, raw_partition
from tests.ingest.messages import telemetry, topic
from tests.servers import RedisServer
from tests.waiting import wait_until
from zenthos_core.database import connect_async

DEADLINE_S = 60.0


class Outbox:
    """The outbox, as ingest fills it: rows of a transaction at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._partitions = Partitions()
        self._number = 0

    def connect(self) -> psycopg.Connection:
        """A connection in autocommit and UTC."""
        return psycopg.connect(self.url, autocommit=True, options="-c timezone=UTC")

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Run one query."""
        with self.connect() as connection:
            return connection.execute(statement, parameters).fetchall()

    def insert(
        self, connection: psycopg.Connection, count: int, *, payload: bytes | None = None
    ) -> None:
        """Put messages into the outbox; the caller commits."""
        now = datetime.now(UTC)
        rows = [
            ("telemetry", topic().decode(), payload or self._next(), now, 1) for _ in range(count)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO raw_messages (message_type, topic, payload, received_at, qos)"
                " VALUES (%s, %s, %s, %s, %s)",
                rows,
            )

    def commit(self, count: int, *, payload: bytes | None = None) -> None:
        """Put messages into the outbox in one transaction."""
        with self.connect() as connection:
            self.prepare(connection)
            with connection.transaction():
                self.insert(connection, count, payload=payload)

    def prepare(self, connection: psycopg.Connection) -> None:
        """Make the partitions that are needed now and in the next hour."""
        now = time.time()
        self._partitions.ensure(connection, {raw_partition(now), raw_partition(now + 3600)})

    def _next(self) -> bytes:
        self._number += 1
        return telemetry(seq=self._number)

    def in_order(self) -> list[str]:
        """Ids of all messages of the outbox, in order of transactions."""
        rows = self.query("SELECT payload FROM raw_messages ORDER BY xid, id")
        return [msgspec.json.decode(payload)["message_id"] for (payload,) in rows]  # type: ignore[call-overload]

    def cursor(self, name: str) -> tuple[object, ...] | None:
        """How many messages a forwarder has forwarded, if it has ever begun."""
        rows = self.query("SELECT forwarded FROM forwarders WHERE name = %s", name)
        return rows[0] if rows else None

    def forwarder(self, name: str, sink: Sink) -> Forwarder:
        """A forwarder on this outbox, not yet started."""
        connect = partial(connect_async, self.url, application="test")
        return Forwarder(name, connect, sink, ForwardMetrics())


@pytest.fixture
def outbox(ops_url: str) -> Outbox:
    """An empty outbox."""
    outbox = Outbox(ops_url)
    with outbox.connect() as connection:
        outbox.prepare(connection)
    return outbox


@pytest.fixture
def start(outbox: Outbox) -> Iterator[Callable[[Forwarder], None]]:
    """Starts forwarders and stops them after the test; each has begun on return."""
    started: list[Forwarder] = []

    def begin(forwarder: Forwarder) -> None:
        forwarder.start()
        started.append(forwarder)
        wait_until(lambda: outbox.cursor(forwarder.name))

    yield begin
    for forwarder in started:
        forwarder.stop()


def unique(ids: list[str]) -> list[str]:
    """Each id where it came first: what consumers see once they know the repeated ones."""
    return list(dict.fromkeys(ids))


def stream(server: RedisServer) -> list[dict[bytes, bytes]]:
    """Entries of the Redis stream."""
    with redis.Redis.from_url(server.url) as client:
        return [entry for _, entry in client.xrange(STREAM)]


def stream_ids(server: RedisServer) -> list[str]:
    """Message ids in the Redis stream, in order."""
    return [entry[b"id"].decode() for entry in stream(server)]


def consume(
    url: str, queue: str, count: int, *, wait_s: float = DEADLINE_S
) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Take and acknowledge messages until `count` different ids have come."""

    async def take() -> list[aio_pika.abc.AbstractIncomingMessage]:
        messages: list[aio_pika.abc.AbstractIncomingMessage] = []
        ids: set[str | None] = set()
        async with asyncio.timeout(wait_s), await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(1_000)
            source = await channel.get_queue(queue, ensure=False)
            async with source.iterator() as iterator:
                while len(ids) < count:
                    message = await anext(iterator)
                    await message.ack()
                    messages.append(message)
                    ids.add(message.message_id)
        return messages

    return asyncio.run(take())


def queue_ids(url: str, count: int) -> list[str]:
    """Message ids of `sensor_data`, in order."""
    return [str(message.message_id) for message in consume(url, "sensor_data", count)]


def delete_queues(url: str) -> None:
    """Leave nothing of the topology, as on a new broker."""

    async def delete() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            for name in QUEUES:
                for queue in (name, f"{name}.dead"):
                    await channel.queue_delete(queue)
                await channel.exchange_delete(f"dlx.{name}")
            await channel.exchange_delete(EXCHANGE)

    asyncio.run(delete())
