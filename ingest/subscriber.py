"""One connection to the broker: a persistent session on a shared subscription.

Reading stops while nobody asks for messages, so the socket is the back-pressure: what is not
read waits at the broker, and memory holds no more than the batches in hand.
"""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from zenthos_core import mqtt
from zenthos_core.mqtt import Connack, Disconnect, Message, MqttError, Publish, Suback
from zenthos_core.topics import EVERYTHING_FILTER

SHARED_FILTER: Final = f"$share/ingest/{EVERYTHING_FILTER}"
SESSION_EXPIRY_S: Final = 7 * 86_400
KEEP_ALIVE_S: Final = 15
"""After half of it without sending comes a ping; unanswered for all of it, the broker is gone."""
CONNECT_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 30.0
"""A broker that saves a gigabyte of waiting messages takes nothing for seconds."""
READ_BYTES: Final = 256 * 1024
SMALL_READ_BYTES: Final = READ_BYTES // 4
NAP_S: Final = 0.002
"""The broker sends one message at a time; without a nap each costs a wake-up and a read, 10 µs."""

_Answer = TypeVar("_Answer", Connack, Suback)
_REQUESTS: Final = {Connack: "the connection", Suback: "the subscription"}


class Broker(NamedTuple):
    """Where the broker is and who we are to it."""

    host: str
    port: int
    username: str
    password: str
    client_id: str


class SessionTakenOverError(MqttError):
    """Somebody else holds this worker's session now; what was not acknowledged goes to them."""


class Subscriber:
    """Messages of the shared subscription, and their acknowledgement.

    One thread receives; any thread may acknowledge. Every method raises OSError, or
    MqttError, where the connection is of no more use.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        keep_alive_s: int = KEEP_ALIVE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._reader = mqtt.PacketReader()
        self._pending: list[Publish] = []
        self._pending_bytes = 0
        self._last_read_bytes = 0
        self._pinged_at: float | None = None
        self._answers: list[Connack | Suback] = []
        self._packet_id = 0
        self._sending = threading.Lock()
        self._keep_alive_s = keep_alive_s
        self._sent_at = time.monotonic()
        self._socket = socket.create_connection((broker.host, broker.port), CONNECT_TIMEOUT_S)
        try:
            self._open_session(broker)
        except BaseException:
            self._socket.close()
            raise

    def _open_session(self, broker: Broker) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(
            mqtt.encode_connect(
                broker.client_id,
                broker.username,
                broker.password,
                keep_alive_s=self._keep_alive_s,
                clean_start=False,
                session_expiry_s=SESSION_EXPIRY_S,
                receive_maximum=mqtt.MAX_PACKET_IDS,
            )
        )
        connack = self._await(Connack)
        self._keep_alive_s = connack.keep_alive_s or self._keep_alive_s
        self._send(mqtt.encode_subscribe(1, [SHARED_FILTER]))
        self._await(Suback)
        self._socket.settimeout(SEND_TIMEOUT_S)

    def receive(self, max_messages: int, max_bytes: int, wait_s: float) -> list[Publish]:
        """Messages in order of arrival, none if none came within `wait_s`."""
        if not self._pending:
            if not self._read(wait_s):
                self._check_answer()
            elif self._last_read_bytes < SMALL_READ_BYTES:
                time.sleep(NAP_S)
                self._read(0)
        while (
            len(self._pending) < max_messages
            and self._pending_bytes < max_bytes
            and self._last_read_bytes >= SMALL_READ_BYTES
            and self._read(0)
        ):
            pass
        self.keep_alive()
        messages = self._pending[:max_messages]
        del self._pending[:max_messages]
        self._pending_bytes = sum(len(m.payload) for m in self._pending)
        return messages

    def publish(self, messages: Iterable[Message]) -> None:
        """Publish at QoS 1; whether the broker has taken a message is not waited for."""
        packets = []
        for message in messages:
            self._packet_id = self._packet_id % mqtt.MAX_PACKET_IDS + 1
            packets.append(mqtt.encode_publish(message, self._packet_id))
        self._send(b"".join(packets))

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Tell the broker that these are stored, in the order in which they arrived.

        Mosquitto 2.0.11 sends more than our Receive Maximum and uses a packet id again while it is
        in flight (eclipse/mosquitto issue 2301): out of order, another message would be released.
        """
        self._send(mqtt.encode_pubacks(packet_ids))

    def keep_alive(self) -> None:
        """Send a ping where one is due; for a caller who does not receive for a while."""
        if time.monotonic() - self._sent_at > self._keep_alive_s / 2:
            self._send(mqtt.PINGREQ)
            self._pinged_at = self._pinged_at or time.monotonic()

    def _check_answer(self) -> None:
        """Nothing can be read: is a ping unanswered, because the broker or the network is gone?"""
        if self._pinged_at and time.monotonic() - self._pinged_at > self._keep_alive_s:
            raise TimeoutError("the broker does not answer")

    def close(self) -> None:
        """End the connection; the session stays at the broker."""
        try:
            self._send(mqtt.DISCONNECT)
        except OSError:
            pass  # the broker left first: there is nobody to tell
        finally:
            self._socket.close()

    def _await(self, kind: type[_Answer]) -> _Answer:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            for packet in self._answers:
                if packet.reason >= mqtt.REFUSED:
                    raise MqttError(
                        f"the broker refuses {_REQUESTS[type(packet)]}: "
                        f"{mqtt.reason_text(packet.reason)}; check the account and its ACL"
                    )
                if isinstance(packet, kind):
                    self._answers.remove(packet)
                    return packet
            if not self._read(deadline - time.monotonic()):
                raise TimeoutError(f"the broker sent no {kind.__name__} in {CONNECT_TIMEOUT_S} s")

    def _read(self, timeout_s: float) -> bool:
        """Take in what has arrived; False where nothing did within the timeout."""
        if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
            return False
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        self._last_read_bytes = len(data)
        self._pinged_at = None
        for packet in self._reader.feed(data, self._clock()):
            if isinstance(packet, Publish):
                self._pending.append(packet)
                self._pending_bytes += len(packet.payload)
            elif isinstance(packet, Connack | Suback):
                self._answers.append(packet)
            elif isinstance(packet, Disconnect):
                if packet.reason == mqtt.SESSION_TAKEN_OVER:
                    raise SessionTakenOverError(
                        "another worker has connected under the same id: give each its own"
                        " ZENTHOS_INGEST_WORKER_ID"
                    )
                reason = mqtt.reason_text(packet.reason)
                raise MqttError(f"the broker ends the connection: {reason}")
        return True

    def _send(self, data: bytes) -> None:
        if not data:
            return  # the broker hears nothing of it: a ping may be due all the same
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError:
                # Half a packet may have left: whatever followed would be read as its rest, such
                # as the acknowledgement of another message. This ends reading, too.
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                raise
            self._sent_at = time.monotonic()
