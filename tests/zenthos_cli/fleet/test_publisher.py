"""The publisher against a real Mosquitto."""

import asyncio
import random

import pytest

from tests.servers import MosquittoServer
from tests.zenthos_cli.fleet.conftest import Subscriber
from zenthos_cli.fleet.messages import Device, status
from zenthos_cli.fleet.publisher import connected
from zenthos_cli.fleet.session import (
    Broker,
    Credentials,
    PublishRefusedError,
    SessionTakenOverError,
)
from zenthos_core.errors import ConfigurationError
from zenthos_core.mqtt import Message
from zenthos_core.topics import telemetry_topic

MODEL = "esp32-s3"


def accounts(server: MosquittoServer, count: int) -> list[Credentials]:
    made = [Credentials(f"device-{i:04d}", f"secret-{i}") for i in range(count)]
    server.add_accounts({account.device_id: account.password for account in made})
    return made


def say(device_id: str, state: str) -> Message:
    return status(Device(device_id, MODEL), state, now=1_700_000_000, salt=str(random.random()))


def reading(device_id: str, number: int) -> Message:
    return Message(telemetry_topic(MODEL, device_id), b"%d" % number + b"x" * 300)


async def send(broker: Broker, who: list[Credentials], messages: list[Message]) -> None:
    """By the first of these devices."""
    async with connected(broker, who, say, random.Random(1)) as publisher:
        for message in messages:
            await publisher.publish(who[0].device_id, message)


async def test_what_is_acknowledged_is_received_exactly_as_sent(
    mosquitto: MosquittoServer, subscriber: Subscriber
) -> None:
    who = accounts(mosquitto, 4)
    sent = [reading(a.device_id, n) for n in range(2_500) for a in who]
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(broker, who, say, random.Random(1)) as publisher:
        for message in sent:
            await publisher.publish(message.topic.split("/")[2], message)
    await asyncio.to_thread(subscriber.wait_for_distinct, len(sent))
    for account in who:
        own = telemetry_topic(MODEL, account.device_id)
        received = [m for m in subscriber.telemetry() if m.topic == own]
        assert received == [m for m in sent if m.topic == own]
    assert publisher.counters.acknowledged == len(sent) + 2 * len(who)
    assert publisher.counters.resent == 0


async def test_a_device_says_online_then_offline_and_the_will_stays_unused(
    mosquitto: MosquittoServer, subscriber: Subscriber
) -> None:
    who = accounts(mosquitto, 1)
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(broker, who, say, random.Random(1)) as publisher:
        await publisher.publish(who[0].device_id, reading(who[0].device_id, 1))
    await asyncio.to_thread(subscriber.wait_for, 3)
    await asyncio.sleep(0.3)  # a will would come now
    states = [b'"online"' in m.payload for m in subscriber.received if "status" in m.topic]
    assert states == [True, False]


@pytest.mark.fault
async def test_a_restart_of_the_broker_loses_nothing(
    mosquitto: MosquittoServer, subscriber: Subscriber
) -> None:
    who = accounts(mosquitto, 20)
    sent = [reading(a.device_id, n) for n in range(2_000) for a in who]
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(broker, who, say, random.Random(1)) as publisher:
        for number, message in enumerate(sent):
            await publisher.publish(message.topic.split("/")[2], message)
            if number == len(sent) // 2:
                await asyncio.to_thread(mosquitto.restart)
    await asyncio.to_thread(subscriber.wait_for_distinct, len(sent))
    assert set(subscriber.telemetry()) == set(sent)
    assert publisher.counters.connects >= 2 * len(who)


async def test_a_thousand_connections_in_one_process(
    mosquitto: MosquittoServer, subscriber: Subscriber
) -> None:
    who = accounts(mosquitto, 1_000)
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(broker, who, say, random.Random(1)) as publisher:
        for account in who:
            await publisher.publish(account.device_id, reading(account.device_id, 1))
    await asyncio.to_thread(subscriber.wait_for_distinct, 1_000)
    assert publisher.counters.acknowledged == 3_000


async def test_an_account_that_comes_late_is_waited_for(mosquitto: MosquittoServer) -> None:
    who = [Credentials("device-late", "secret")]
    broker = Broker(mosquitto.host, mosquitto.port)
    async with connected(broker, who, say, random.Random(1)) as publisher:
        await publisher.publish("device-late", reading("device-late", 1))
        await asyncio.sleep(0.3)
        assert publisher.counters.acknowledged == 0
        mosquitto.add_account("device-late", "secret")
    assert publisher.counters.acknowledged == 3


async def test_a_wrong_password_ends_with_what_to_do(mosquitto: MosquittoServer) -> None:
    broker = Broker(mosquitto.host, mosquitto.port, patience_s=0.2)
    who = [Credentials("device-none", "wrong")]
    with pytest.raises(ConfigurationError, match=r"not authorized.*is the device registered"):
        await send(broker, who, [reading("device-none", 1)])


async def test_no_broker_ends_with_what_to_do(free_port: int) -> None:
    broker = Broker("127.0.0.1", free_port, patience_s=0.2)
    with pytest.raises(ConfigurationError, match="no connection to the broker"):
        await send(broker, [Credentials("device-none", "x")], [reading("device-none", 1)])


async def test_a_refused_publish_is_an_error_not_a_loss(mosquitto: MosquittoServer) -> None:
    who = accounts(mosquitto, 1)
    broker = Broker(mosquitto.host, mosquitto.port)
    with pytest.raises(PublishRefusedError, match="under its own id"):
        await send(broker, who, [reading("device-other", 1)])


async def test_a_second_client_of_the_same_device_is_an_error_not_a_war() -> None:
    """Mosquitto 2.0.11 only closes the older connection, so this broker is a script."""
    who = [Credentials("device-twin", "secret")]

    async def take_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(bytes.fromhex("20 03 00 00 00") + bytes.fromhex("e0 01 8e"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(take_over, "127.0.0.1") as server:
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(SessionTakenOverError, match="another client"):
            await send(broker, who, [reading("device-twin", 1)])
