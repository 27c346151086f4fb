"""One device at the broker: published means acknowledged, whatever happens to the connection.

Rules:

1. A message counts as sent when its PUBACK has arrived and does not refuse it.
2. What was unacknowledged when a connection ended is sent again on the next one, first, unchanged.
3. At most `window` messages (and the broker's receive maximum) are unacknowledged at any time;
   nothing is written while the socket's buffer is full.
4. A refused or lost connection is tried again after a capped, jittered, doubling pause; after
   `patience_s` without one the session fails.
5. A refused message fails the session: to go on would lose it. So does another client that
   connects as the same device, where the broker says so: the two would throw each other out.
   (Mosquitto 2.0.11 only closes the connection; the pause then grows, since only a connection
   that lasted `STABLE_S` resets it.)
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from zenthos_core import mqtt
from zenthos_core.errors import ConfigurationError, ZenthosError
from zenthos_core.mqtt import Message, MqttError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STABLE_S = 5.0
CONNECT_TIMEOUT_S = 15.0
KEEP_ALIVE_S = 60


class PublishRefusedError(ZenthosError):
    """The broker answered that it did not take a message."""


class SessionTakenOverError(ZenthosError):
    """Another client connected under our client id."""

    def __init__(self) -> None:
        super().__init__(
            "another client connected as one of these devices: end the other run of this farm, "
            "or choose another --farm"
        )


@dataclass(frozen=True)
class Broker:
    """Where the broker is, and how patient to be with it. `gate` bounds simultaneous connects."""

    host: str
    port: int
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))
    window: int = 200
    patience_s: float = 120.0


@dataclass(frozen=True)
class Credentials:
    """Who connects; the device id is client id and user name."""

    device_id: str
    password: str


@dataclass
class Counters:
    """What all sessions of a fleet did. `resent` may have been received twice."""

    acknowledged: int = 0
    resent: int = 0
    connects: int = 0
    outstanding: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever something was acknowledged."""


class _Link(asyncio.Protocol):
    """A connection: turns received bytes into calls, and tells when the socket is full."""

    def __init__(self, on_ack: Callable[[mqtt.Puback], None], on_room: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[mqtt.Connack] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.heard = True
        self.full = False
        self.transport: asyncio.Transport
        self._reader = mqtt.PacketReader()
        self._on_ack = on_ack
        self._on_room = on_room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            for packet in self._reader.feed(data):
                self._handle(packet)
        except ZenthosError as error:
            self._end(error)
            self.transport.abort()
        else:
            self._on_room()

    def _handle(self, packet: mqtt.Packet) -> None:
        match packet:
            case mqtt.Puback():
                self._on_ack(packet)
            case mqtt.Connack(reason) if not reason and not self.opened.done():
                self.opened.set_result(packet)
            case mqtt.Disconnect(mqtt.SESSION_TAKEN_OVER):
                raise SessionTakenOverError
            case mqtt.Connack(reason) | mqtt.Disconnect(reason):
                raise MqttError(f"the broker says: {mqtt.reason_text(reason)}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(MqttError(str(exc or "the broker closed the connection")))

    def _end(self, error: ZenthosError) -> None:
        for future in (self.opened, self.closed):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: whoever does not wait for it need not

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._on_room()


class Session:
    """A device's connection to the broker, kept up by `run`."""

    def __init__(
        self,
        broker: Broker,
        credentials: Credentials,
        *,
        greeting: Callable[[], Message],
        will: Callable[[], Message],
        counters: Counters,
        rng: random.Random,
    ) -> None:
        """`greeting` and `will` are made anew for each connection."""
        self._broker = broker
        self._credentials = credentials
        self._greeting = greeting
        self._will = will
        self._counters = counters
        self._rng = rng
        self._waiting: deque[Message] = deque()
        self._unacknowledged: dict[int, Message] = {}
        self._packet_id = 0
        self._window = broker.window
        self._link: _Link | None = None
        self._pump_due = False
        self._closing = False
        self._changed = asyncio.Event()

    async def publish(self, message: Message) -> None:
        """Queue a message; waits while two windows of messages are queued before it."""
        while len(self._waiting) + len(self._unacknowledged) >= 2 * self._broker.window:
            await self._change()
        self._waiting.append(message)
        self._counters.outstanding += 1
        self._pump_soon()

    async def drain(self) -> None:
        """Wait until everything published is acknowledged."""
        while self._waiting or self._unacknowledged:
            await self._change()

    def close(self) -> None:
        """End `run` and tell the broker that we leave, so that it keeps the last will to itself."""
        self._closing = True
        if self._link is not None:
            self._link.transport.write(mqtt.DISCONNECT)
            self._link.transport.close()

    async def run(self) -> None:
        """Keep connected until `close`.

        Raises:
            ConfigurationError: without a connection for `patience_s`.
            PublishRefusedError: where the broker did not take a message.
            SessionTakenOverError: where a second client connected as this device.
        """
        loop = asyncio.get_running_loop()
        pause_s, last_seen = FIRST_PAUSE_S, loop.time()
        while not self._closing:
            opened = float("inf")
            try:
                link = await self._open()
                opened = loop.time()
                await self._stay(link)
            except (OSError, TimeoutError, MqttError) as error:
                if self._closing:
                    return
                if self._link is not None:
                    last_seen = loop.time()
                self._requeue()
                self._give_up_after(loop.time() - last_seen, error)
            if loop.time() - opened > STABLE_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _give_up_after(self, silent_s: float, error: Exception) -> None:
        if silent_s > self._broker.patience_s:
            raise ConfigurationError(
                f"{self._credentials.device_id}: no connection to the broker at "
                f"{self._broker.host}:{self._broker.port} for {silent_s:.0f} s ({error}); "
                "is the stack up (`zenthos status`), is the device registered?"
            ) from None

    async def _open(self) -> _Link:
        who = self._credentials
        async with self._broker.gate, asyncio.timeout(CONNECT_TIMEOUT_S):
            transport, link = await asyncio.get_running_loop().create_connection(
                lambda: _Link(self._acknowledged, self._pump), self._broker.host, self._broker.port
            )
            try:
                transport.write(
                    mqtt.encode_connect(
                        who.device_id,
                        who.device_id,
                        who.password,
                        keep_alive_s=KEEP_ALIVE_S,
                        clean_start=True,
                        will=self._will(),
                    )
                )
                answer = await link.opened
            except BaseException:
                transport.abort()
                raise
        self._window = min(self._broker.window, answer.receive_maximum)
        self._counters.connects += 1
        self._waiting.appendleft(self._greeting())
        self._counters.outstanding += 1
        self._link = link
        self._pump()
        return link

    async def _stay(self, link: _Link) -> None:
        """Until the connection ends; a broker silent for a whole keep-alive counts as gone."""
        try:
            while True:
                done, _ = await asyncio.wait({link.closed}, timeout=KEEP_ALIVE_S / 2)
                if done:
                    return link.closed.result()
                if not link.heard:
                    raise MqttError("the broker does not answer")
                link.heard = False
                link.transport.write(mqtt.PINGREQ)
        finally:
            link.transport.abort()

    def _requeue(self) -> None:
        self._counters.resent += len(self._unacknowledged)
        self._waiting.extendleft(reversed(self._unacknowledged.values()))
        self._unacknowledged.clear()
        self._link = None

    def _acknowledged(self, ack: mqtt.Puback) -> None:
        message = self._unacknowledged.pop(ack.packet_id, None)
        if message is None:
            raise MqttError(f"acknowledgement of unknown packet {ack.packet_id}")
        if ack.reason == mqtt.QUOTA_EXCEEDED:
            self._waiting.appendleft(message)
            raise MqttError(f"the broker says: {mqtt.reason_text(ack.reason)}")
        if ack.reason >= mqtt.REFUSED:
            raise PublishRefusedError(
                f"the broker did not take a message on {message.topic}: "
                f"{mqtt.reason_text(ack.reason)}; a device may publish only under its own id"
            )
        self._counters.acknowledged += 1
        self._counters.outstanding -= 1
        self._counters.progress.set()

    def _pump_soon(self) -> None:
        """Write once for all messages that are published before the loop comes round again."""
        if not self._pump_due and self._link is not None:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        link, packets = self._link, []
        if link is not None and not link.full and not link.transport.is_closing():
            while self._waiting and len(self._unacknowledged) < self._window:
                message = self._waiting.popleft()
                packet_id = self._next_id()
                self._unacknowledged[packet_id] = message
                packets.append(mqtt.encode_publish(message, packet_id))
            if packets:
                link.transport.write(b"".join(packets))
        self._changed.set()

    def _next_id(self) -> int:
        """The window is smaller than the number of ids, so there is always a free one."""
        self._packet_id = self._packet_id % mqtt.MAX_PACKET_IDS + 1
        while self._packet_id in self._unacknowledged:
            self._packet_id = self._packet_id % mqtt.MAX_PACKET_IDS + 1
        return self._packet_id

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
