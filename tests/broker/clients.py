"""Independent clients (paho) that say what the broker answered and what they received."""

import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from tests.servers import MosquittoServer

PATIENCE_S = 30.0
ACCEPTED = 0
NOT_AUTHORIZED = 135  # MQTT 5.0, 2.4


class Client:
    """One connection over MQTT 5, in a thread of paho's. It never connects again by itself."""

    def __init__(
        self,
        server: MosquittoServer,
        username: str | None,
        password: str | None,
        *,
        client_id: str | None = None,
        port: int | None = None,
        tls: ssl.SSLContext | None = None,
        will: str | None = None,
        clean_start: bool = True,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.answer: int | None = None
        self.ended: float | None = None
        self._acknowledged: dict[int, Any] = {}
        self._subscribed: dict[int, int] = {}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=(username or "") if client_id is None else client_id,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.username_pw_set(username, password)
        if tls is not None:
            self._client.tls_set_context(tls)
        if will is not None:
            self._client.will_set(will, b"gone", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        properties = Properties(paho.PacketTypes.CONNECT)  # type: ignore[attr-defined]
        if not clean_start:
            properties.SessionExpiryInterval = 3600
        self._client.connect(
            server.host, port or server.port, clean_start=clean_start, properties=properties
        )
        self._client.loop_start()

    def __enter__(self) -> "Client":
        wait_until(lambda: self.answer is not None or self.ended is not None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave in good order."""
        self._client.disconnect()
        self._client.loop_stop()

    def cut(self) -> None:
        """End the connection without a word, so that the last will is published."""
        self._client.loop_stop()
        sock = self._client.socket()
        assert sock is not None
        sock.close()

    @property
    def connected(self) -> bool:
        """Whether the broker let it in and has not thrown it out."""
        return self.answer == ACCEPTED and self.ended is None

    def publish(self, topic: str, payload: bytes = b"{}") -> int:
        """The reason code of the acknowledgement: 16 is `no matching subscribers`."""
        sent = self._client.publish(topic, payload, qos=1)
        wait_until(lambda: sent.mid in self._acknowledged)
        reason: int = self._acknowledged[sent.mid]
        return reason

    def subscribe(self, topic_filter: str) -> int:
        """The reason code of the answer: a granted QoS, or a refusal from 128 on."""
        _, mid = self._client.subscribe(topic_filter, qos=1)
        assert mid is not None
        wait_until(lambda: mid in self._subscribed)
        return self._subscribed[mid]

    def _on_connect(self, _c: object, _d: object, _f: object, reason: Any, _p: object) -> None:
        self.answer = reason.value

    def _on_disconnect(self, *_: object) -> None:
        self.ended = time.monotonic()

    def _on_publish(self, _c: object, _d: object, mid: int, reason: Any, _p: object) -> None:
        self._acknowledged[mid] = reason.value

    def _on_subscribe(self, _c: object, _d: object, mid: int, reasons: Any, _p: object) -> None:
        self._subscribed[mid] = reasons[0].value

    def _on_message(self, _c: object, _d: object, message: paho.MQTTMessage) -> None:
        self.received.append((message.topic, message.payload))


def wait_until(holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Fail where it does not hold in time."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def answer(
    server: MosquittoServer,
    username: str | None,
    password: str | None,
    client_id: str | None = None,
) -> int | None:
    """The reason code that the broker answers a connection with."""
    with Client(server, username, password, client_id=client_id) as client:
        return client.answer
