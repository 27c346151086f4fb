"""A registry and a broker for a fleet, and an ear at the broker."""

import threading
import time
from collections.abc import Iterator

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import SecretStr

from tests.ota_api.conftest import serving
from tests.servers import MosquittoServer
from zenthos_core.mqtt import Message
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role, issue


class Subscriber:
    """Everything that arrives, in order, by an independent client with a persistent session."""

    def __init__(self, server: MosquittoServer) -> None:
        self.received: list[Message] = []
        self._ready = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="test-subscriber", protocol=paho.MQTTv5
        )
        self.client.username_pw_set(server.username, server.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda *_: self.client.subscribe("zenthos/#", qos=1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda _c, _u, m: self.received.append(Message(m.topic, m.payload))
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        self.client.connect(server.host, server.port, clean_start=False, properties=kept)
        self.client.loop_start()
        assert self._ready.wait(60)

    def telemetry(self) -> list[Message]:
        """In order of arrival."""
        return [message for message in self.received if message.topic.endswith("/telemetry")]

    def decoded(self) -> list[dict[str, object]]:
        """Telemetry that is JSON."""
        found = []
        for message in self.telemetry():
            try:
                found.append(msgspec.json.decode(message.payload, type=dict[str, object]))
            except msgspec.DecodeError:
                continue
        return found

    def wait_for(self, count: int) -> None:
        """Until so many messages of any kind have come."""
        deadline = time.monotonic() + 60
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"{len(self.received)} of {count} messages came"
            time.sleep(0.02)

    def wait_for_distinct(self, count: int) -> None:
        """Until so many different telemetry messages have come."""
        deadline = time.monotonic() + 60
        while len(set(self.telemetry())) < count:
            assert time.monotonic() < deadline, "messages did not arrive"
            time.sleep(0.05)


@pytest.fixture
def subscriber(mosquitto: MosquittoServer) -> Iterator[Subscriber]:
    """Listening from before the test begins."""
    subscriber = Subscriber(mosquitto)
    yield subscriber
    subscriber.client.disconnect()
    subscriber.client.loop_stop()


@pytest.fixture
def fleet_settings(settings: Settings) -> Iterator[Settings]:
    """Settings of a running registry, with an administrator's token."""
    token = issue(
        settings.token_private_key_file.read_bytes(),
        "cli",
        Role.ADMIN,
        now=time.time(),
        valid_s=3600,
        scopes=["read", "publish"],
    )
    with serving(settings):
        yield settings.model_copy(update={"admin_token": SecretStr(token)})
