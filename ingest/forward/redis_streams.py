"""Redis Streams: one stream of bounded length."""

from collections.abc import Awaitable, Sequence
from typing import Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.typing import EncodableT

from ingest.forward.envelope import Envelope
from ingest.forward.sink import CONNECT_TIMEOUT_S, SEND_TIMEOUT_S

STREAM: Final = "raw_archive_stream"


class RedisStream:
    """A `Sink` on one connection."""

    def __init__(self, url: str, max_length: int) -> None:
        self._max_length = max_length
        self._redis = Redis.from_url(
            url,
            single_connection_client=True,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=SEND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the forwarder tries again, from its cursor
        )

    async def open(self) -> None:
        """Connect."""
        await self._redis.initialize()
        await cast("Awaitable[bool]", self._redis.ping())

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Append in order, in one round trip.

        Raises:
            redis.RedisError: not all are; which ones is not known.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for envelope in envelopes:
            pipeline.xadd(STREAM, _fields(envelope), maxlen=self._max_length, approximate=True)
        await pipeline.execute()  # raises the first error among the replies

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()


def _fields(envelope: Envelope) -> dict[EncodableT, EncodableT]:
    """The entry of a message: the envelope's fields, the payload as it arrived."""
    return {
        "id": envelope.id,
        "type": envelope.type,
        "device_id": envelope.device_id,
        "timestamp": envelope.timestamp,
        "payload": bytes(envelope.payload),
    }
