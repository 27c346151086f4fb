"""RabbitMQ: exchange, queues and their dead letters, and publishing with confirms.

    ingest.exchange ── sensor.* ──▶ sensor_data ┐
      (topic)       ── alert.# ───▶ alerts      ├ after N deliveries ▶ dlx.QUEUE ▶ QUEUE.dead
                    ── firmware.# ▶ firmware_jobs ┘

All of it is durable and declared at each connection, so that a new broker needs no set-up.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.connection import make_url
from aio_pika.exceptions import ChannelPreconditionFailed

from ingest.forward.envelope import Envelope, encode
from ingest.forward.sink import CONNECT_TIMEOUT_S, SEND_TIMEOUT_S
from zenthos_core.errors import ForwardError

EXCHANGE: Final = "ingest.exchange"
QUEUES: Final[Mapping[str, str]] = MappingProxyType(
    {"sensor_data": "sensor.*", "alerts": "alert.#", "firmware_jobs": "firmware.#"}
)
"""Each queue and what it is bound to."""


class RabbitMq:
    """A `Sink` on one connection and channel."""

    def __init__(self, url: str, max_deliveries: int) -> None:
        # What it logs at each try it also raises, and the forwarder tells once.
        logging.getLogger("aiormq").setLevel(logging.CRITICAL)
        self._url = url
        self._max_deliveries = max_deliveries
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def open(self) -> None:
        """Connect and declare the topology.

        Raises:
            ForwardError: a queue or exchange is there with other properties.
        """
        # Kept before it connects, so that `close` also ends one that failed to.
        self._connection = aio_pika.Connection(make_url(self._url))
        await self._connection.connect(timeout=CONNECT_TIMEOUT_S)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            channel = await self._connection.channel(on_return_raises=True)
            try:
                self._exchange = await declare(channel, self._max_deliveries)
            except ChannelPreconditionFailed as error:
                raise ForwardError(
                    f"RabbitMQ has it otherwise ({error}): put ZENTHOS_FORWARD_MAX_DELIVERIES back,"
                    " or let the queue's consumers empty it and delete it"
                ) from error

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Publish in order and wait until each is confirmed.

        Raises:
            OSError, aio_pika.exceptions.AMQPError: not all are; which ones is not known.
        """
        if self._exchange is None:
            raise ForwardError("not connected to RabbitMQ")
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await asyncio.gather(*(publish(self._exchange, envelope) for envelope in envelopes))

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.close()


async def publish(exchange: AbstractExchange, envelope: Envelope) -> None:
    """Publish one message and wait for its confirmation.

    `mandatory`: a message that no queue takes is an error, not confirmed and gone.
    """
    message = aio_pika.Message(
        encode(envelope),
        message_id=envelope.id,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await exchange.publish(message, f"sensor.{envelope.type}", mandatory=True)


async def declare(channel: AbstractChannel, max_deliveries: int) -> AbstractExchange:
    """Make what is missing of exchange, queues and dead letters; changes nothing that is there."""
    exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
    for name, routing_key in QUEUES.items():
        queue = await _declare_queue(channel, name, max_deliveries)
        await queue.bind(exchange, routing_key)
    return exchange


async def _declare_queue(channel: AbstractChannel, name: str, max_deliveries: int) -> AbstractQueue:
    dead_letters = await channel.declare_exchange(
        f"dlx.{name}", aio_pika.ExchangeType.FANOUT, durable=True
    )
    dead = await channel.declare_queue(
        f"{name}.dead", durable=True, arguments={"x-queue-type": "quorum"}
    )
    await dead.bind(dead_letters)
    return await channel.declare_queue(
        name,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # counts redeliveries: the first delivery is not one
            "x-delivery-limit": max_deliveries - 1,
            "x-dead-letter-exchange": dead_letters.name,
            # else a dead letter may be lost on its way; it wants this way of overflowing
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
