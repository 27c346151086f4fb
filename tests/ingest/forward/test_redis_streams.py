"""What Redis is given: a stream in order of commit, of bounded length."""

from collections.abc import Callable

import msgspec
import pytest
import redis

from ingest.forward.envelope import Envelope
from ingest.forward.forwarder import Forwarder
from ingest.forward.redis_streams import RedisStream
from tests.ingest.forward.conftest import Outbox, stream, stream_ids
from tests.ingest.messages import DEVICE, telemetry
from tests.servers import RedisServer
from tests.waiting import wait_until

PAYLOAD = telemetry(note="köy  \u2028")


def envelopes(count: int) -> list[Envelope]:
    return [
        Envelope(f"id-{n}", "telemetry", DEVICE, 1_795_000_000, msgspec.Raw(PAYLOAD))
        for n in range(count)
    ]


async def test_an_entry_has_the_fields_of_the_envelope(redis_server: RedisServer) -> None:
    sink = RedisStream(redis_server.url, 1_000)
    await sink.open()
    await sink.send(envelopes(1))
    await sink.close()
    assert stream(redis_server) == [
        {
            b"id": b"id-0",
            b"type": b"telemetry",
            b"device_id": DEVICE.encode(),
            b"timestamp": b"1795000000",
            b"payload": PAYLOAD,
        }
    ]


async def test_the_stream_is_bounded_and_keeps_the_newest(redis_server: RedisServer) -> None:
    sink = RedisStream(redis_server.url, 1_000)
    await sink.open()
    for _ in range(5):
        await sink.send(envelopes(500))
    await sink.close()
    ids = stream_ids(redis_server)
    assert 1_000 <= len(ids) <= 1_100  # Redis drops whole nodes, of 100 entries
    assert ids[-500:] == [f"id-{n}" for n in range(500)]


async def test_an_entry_that_redis_refuses_fails_the_batch(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("raw_archive_stream", "not a stream")
    sink = RedisStream(redis_server.url, 1_000)
    await sink.open()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await sink.send(envelopes(2))
    await sink.close()


async def test_a_wrong_password_fails_at_once(redis_server: RedisServer) -> None:
    sink = RedisStream(f"redis://:wrong@127.0.0.1:{redis_server.port}", 1_000)
    with pytest.raises(redis.AuthenticationError):
        await sink.open()
    await sink.close()


def test_what_is_committed_arrives_in_order(
    redis_server: RedisServer, outbox: Outbox, start: Callable[[Forwarder], None]
) -> None:
    start(outbox.forwarder("redis", RedisStream(redis_server.url, 10_000)))
    for _ in range(5):
        outbox.commit(300)
    wait_until(lambda: outbox.cursor("redis") == (1_500,))
    assert stream_ids(redis_server) == outbox.in_order()
