"""A device that asks is told which of its messages are committed."""

import json
import queue
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.ingest.conftest import IngestProcess
from tests.ingest.devices import PASSWORD, PublishingDevice
from tests.ingest.messages import DEVICE, inference, log, status, telemetry, topic
from tests.servers import MosquittoServer, PostgresServer

WAIT_S = 20.0
MAKERS = {"telemetry": telemetry, "status": status, "inference": inference, "logs": log}


@contextmanager
def listening(server: MosquittoServer, device_id: str = DEVICE) -> Iterator["queue.Queue[bytes]"]:
    """What arrives on a device's `ack` topic, from another connection of its own."""
    heard: queue.Queue[bytes] = queue.Queue()
    ready: queue.Queue[int] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"listener-{device_id}")
    client.username_pw_set(device_id, PASSWORD)
    client.on_message = lambda _client, _data, message: heard.put(message.payload)
    client.on_subscribe = lambda *_: ready.put(1)
    client.connect(server.host, server.port)
    client.loop_start()
    client.subscribe(topic("ack", device_id).decode(), qos=1)
    ready.get(timeout=WAIT_S)
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def told(heard: "queue.Queue[bytes]", count: int) -> list[str]:
    """Ids from as many messages as it takes."""
    ids: list[str] = []
    while len(ids) < count:
        ids += json.loads(heard.get(timeout=WAIT_S))["message_ids"]
    return ids


@pytest.mark.parametrize("message_type", MAKERS)
def test_the_ids_asked_for_are_told(
    message_type: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    asked = [str(uuid.uuid4()) for _ in range(250)]
    make = MAKERS[message_type]
    with listening(fleet_broker) as heard, PublishingDevice(fleet_broker, DEVICE) as device:
        device.publish(topic(message_type), make(timestamp=time.time()))
        for message_id in asked:
            payload = make(message_id=message_id, timestamp=time.time(), ack=True)
            device.publish(topic(message_type), payload)
        device.flush()
        assert sorted(told(heard, len(asked))) == sorted(asked)
        assert heard.empty()


def test_a_message_that_comes_again_is_told_again(
    fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    payload = telemetry(timestamp=time.time(), ack=True)
    with listening(fleet_broker) as heard, PublishingDevice(fleet_broker, DEVICE) as device:
        for _ in range(3):
            device.publish(topic(), payload)
            device.flush()
            assert told(heard, 1) == [json.loads(payload)["message_id"]]


def test_nothing_is_told_before_it_is_committed(
    fleet_broker: MosquittoServer, ingest: IngestProcess, ops_url: str
) -> None:
    payload = telemetry(timestamp=time.time(), ack=True)
    with listening(fleet_broker) as heard, PublishingDevice(fleet_broker, DEVICE) as device:
        with psycopg.connect(ops_url) as holder:
            holder.execute("LOCK TABLE raw_messages IN ACCESS EXCLUSIVE MODE")
            device.publish(topic(), payload)
            device.flush()
            with pytest.raises(queue.Empty):
                heard.get(timeout=1)
        assert told(heard, 1) == [json.loads(payload)["message_id"]]


@pytest.mark.fault
def test_what_went_through_the_spool_is_told_once_it_is_committed(
    tmp_path_factory: pytest.TempPathFactory,
    fleet_broker: MosquittoServer,
    own_postgres: PostgresServer,
    own_ops_url: str,
) -> None:
    from tests.ingest.conftest import register

    with psycopg.connect(own_ops_url, autocommit=True) as connection:
        register(connection, DEVICE)
    process = IngestProcess(
        tmp_path_factory.mktemp("ingest"),
        own_ops_url,
        fleet_broker,
        ZENTHOS_INGEST_SPOOL_AFTER_S="0.2",
    )
    process.start()
    try:
        with listening(fleet_broker) as heard, PublishingDevice(fleet_broker, DEVICE) as device:
            own_postgres.stop()
            asked = []
            for _ in range(50):
                payload = telemetry(timestamp=time.time(), ack=True)
                asked.append(json.loads(payload)["message_id"])
                device.publish(topic(), payload)
                time.sleep(0.05)
            assert heard.empty()
            own_postgres.start()
            assert sorted(told(heard, len(asked))) == sorted(asked)
        deadline = time.monotonic() + WAIT_S
        while "replayed" not in process.log.read_text():
            assert time.monotonic() < deadline, "the spool is not said to be replayed"
            time.sleep(0.05)
    finally:
        process.stop()
