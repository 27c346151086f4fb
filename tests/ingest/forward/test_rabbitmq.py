"""What RabbitMQ is given: its topology, and messages with confirms and dead letters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aio_pika
import msgspec
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import PublishError

from ingest.forward.envelope import Envelope
from ingest.forward.forwarder import Forwarder
from ingest.forward.rabbitmq import EXCHANGE, QUEUES, RabbitMq
from tests.ingest.forward.conftest import Outbox, consume, delete_queues, queue_ids
from tests.ingest.messages import DEVICE, telemetry
from tests.servers import RabbitServer
from zenthos_core.errors import ForwardError

DELIVERIES = 3


def envelope(number: int, message_type: str = "telemetry") -> Envelope:
    payload = msgspec.Raw(telemetry(seq=number))
    return Envelope(f"id-{number}", message_type, DEVICE, 1_795_000_000, payload)


@asynccontextmanager
async def channel_of(server: RabbitServer) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(server.url) as connection:
        yield await connection.channel(on_return_raises=True)


@asynccontextmanager
async def open_sink(server: RabbitServer, deliveries: int = DELIVERIES) -> AsyncIterator[RabbitMq]:
    sink = RabbitMq(server.url, deliveries)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


@pytest.fixture(autouse=True)
def _empty(rabbitmq: RabbitServer) -> None:
    delete_queues(rabbitmq.url)


async def test_each_queue_takes_what_is_its_own(rabbitmq: RabbitServer) -> None:
    keys = {
        "sensor.telemetry": "sensor_data",
        "alert.dry.north": "alerts",
        "firmware.built": "firmware_jobs",
    }
    async with open_sink(rabbitmq), channel_of(rabbitmq) as channel:
        exchange = await channel.get_exchange(EXCHANGE)
        for key in keys:
            await exchange.publish(aio_pika.Message(key.encode()), key)
        for key, name in keys.items():
            queue = await channel.get_queue(name)
            assert queue.declaration_result.message_count == 1
            message = await queue.get()
            assert message is not None
            assert message.body == key.encode()
            await message.ack()


async def test_declaring_again_changes_nothing(rabbitmq: RabbitServer) -> None:
    async with open_sink(rabbitmq) as sink:
        await sink.send([envelope(1)])
    async with open_sink(rabbitmq), channel_of(rabbitmq) as channel:
        assert (await channel.get_queue("sensor_data")).declaration_result.message_count == 1


async def test_a_message_is_persistent_json_with_its_id(rabbitmq: RabbitServer) -> None:
    async with open_sink(rabbitmq) as sink:
        await sink.send([envelope(n) for n in range(300)])
    messages = await asyncio.to_thread(consume, rabbitmq.url, "sensor_data", 300)
    assert [m.message_id for m in messages] == [f"id-{n}" for n in range(300)]
    first = messages[0]
    assert first.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert first.content_type == "application/json"
    assert first.routing_key == "sensor.telemetry"
    assert msgspec.json.decode(first.body)["payload"]["seq"] == 0


async def test_a_message_twice_in_a_batch_is_confirmed_twice(rabbitmq: RabbitServer) -> None:
    async with open_sink(rabbitmq) as sink, channel_of(rabbitmq) as channel:
        await sink.send([envelope(1), envelope(2), envelope(1)])
        assert (await channel.get_queue("sensor_data")).declaration_result.message_count == 3


@pytest.mark.parametrize("deliveries", [1, DELIVERIES])
async def test_a_message_refused_each_time_becomes_a_dead_letter(
    rabbitmq: RabbitServer, deliveries: int
) -> None:
    async with open_sink(rabbitmq, deliveries) as sink, channel_of(rabbitmq) as channel:
        await sink.send([envelope(1)])
        seen: list[object] = []
        queue = await channel.get_queue("sensor_data")

        async def refuse(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            seen.append(message.headers.get("x-delivery-count"))
            await message.reject(requeue=True)

        await queue.consume(refuse)
        (dead,) = await asyncio.to_thread(consume, rabbitmq.url, "sensor_data.dead", 1)
        assert len(seen) == deliveries
    assert dead.message_id == "id-1"
    assert msgspec.json.decode(dead.body)["id"] == "id-1"
    (death,) = dead.headers["x-death"]  # type: ignore[misc, union-attr]
    assert death["queue"] == "sensor_data"  # type: ignore[index, call-overload]
    assert death["reason"] == "delivery_limit"  # type: ignore[index, call-overload]


async def test_a_message_that_no_queue_takes_is_an_error(rabbitmq: RabbitServer) -> None:
    async with open_sink(rabbitmq) as sink, channel_of(rabbitmq) as channel:
        await sink.send([envelope(1)])
        queue = await channel.get_queue("sensor_data")
        await queue.unbind(EXCHANGE, QUEUES["sensor_data"])
        with pytest.raises(PublishError):
            await sink.send([envelope(2), envelope(3)])


async def test_a_queue_with_other_properties_says_what_to_do(rabbitmq: RabbitServer) -> None:
    async with open_sink(rabbitmq, deliveries=5):
        pass
    with pytest.raises(ForwardError, match="ZENTHOS_FORWARD_MAX_DELIVERIES"):
        async with open_sink(rabbitmq, deliveries=6):
            pass


def test_what_is_committed_arrives_in_order(
    rabbitmq: RabbitServer, outbox: Outbox, start: Callable[[Forwarder], None]
) -> None:
    start(outbox.forwarder("rabbitmq", RabbitMq(rabbitmq.url, DELIVERIES)))
    for _ in range(5):
        outbox.commit(300)
    assert queue_ids(rabbitmq.url, 1_500) == outbox.in_order()
