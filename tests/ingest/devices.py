"""Devices that publish through paho and keep count of what the broker has acknowledged."""

import time
from collections import deque
from collections.abc import Hashable
from types import TracebackType

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import MosquittoServer

DEADLINE_S = 60.0
PASSWORD = "password"


class PublishingDevice:
    """One MQTT connection."""

    def __init__(self, server: MosquittoServer, username: str) -> None:
        self._answered: deque[int] = deque()
        self._waiting: dict[int, Hashable] = {}
        self._acknowledged: set[Hashable] = set()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"test-{username}",
            protocol=paho.MQTTv311,
            clean_session=False,
        )
        self._client.username_pw_set(username, PASSWORD)
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(500)
        self._client.on_publish = self._on_publish
        self._client.connect_async(server.host, server.port)
        self._client.loop_start()

    def __enter__(self) -> "PublishingDevice":
        deadline = time.monotonic() + DEADLINE_S
        while not self._client.is_connected():
            assert time.monotonic() < deadline, "the device cannot connect"
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(
        self, topic: bytes, payload: bytes, name: Hashable = "", *, retain: bool = False
    ) -> None:
        """Publish at QoS 1; one thread publishes and flushes."""
        self._settle()
        sent = self._client.publish(topic.decode(), payload, qos=1, retain=retain)
        assert sent.mid not in self._waiting, "more than 65,535 messages in flight"
        self._waiting[sent.mid] = name

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        deadline = time.monotonic() + DEADLINE_S
        while self._waiting:
            assert time.monotonic() < deadline, "not everything is acknowledged"
            time.sleep(0.02)
            self._settle()

    @property
    def acknowledged(self) -> set[Hashable]:
        """Names of the messages that the broker had acknowledged at the last publish or flush."""
        return set(self._acknowledged)

    def _settle(self) -> None:
        while self._answered:
            self._acknowledged.add(self._waiting.pop(self._answered.popleft()))

    def _on_publish(self, _client: object, _data: object, mid: int, *_: object) -> None:
        self._answered.append(mid)  # paho holds locks here that its publish waits for
