"""The part of MQTT 5 that ingest and the fleet need, as bytes in and values out.

No sockets, no clocks. Section numbers are those of the OASIS standard of 7 March 2019. Publishing
is at QoS 1; of what arrives, QoS 2 and topic aliases are left out, since a client that neither
subscribes at QoS 2 nor states a Topic Alias Maximum is sent neither.
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from zenthos_core.errors import ZenthosError

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
"""Ends the connection without the last will; a session with an expiry stays."""
MAX_PACKET_IDS: Final = 65_535

REFUSED: Final = 0x80
"""Reasons from here on are refusals."""
SESSION_TAKEN_OVER: Final = 0x8E
QUOTA_EXCEEDED: Final = 0x97
REASONS: Final = {
    0x80: "unspecified error",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    SESSION_TAKEN_OVER: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    QUOTA_EXCEEDED: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9E: "shared subscriptions not supported",
}
"""2.4, those that these clients may meet."""

_PUBLISH, _PUBACK = 0x30, 0x40
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_PUBACK_PACKET: Final = Struct(">HH")
_PUBACK_HEAD: Final = _PUBACK << 8 | 2
_SESSION_EXPIRY, _SERVER_KEEP_ALIVE, _RECEIVE_MAXIMUM = 0x11, 0x13, 0x21
TRACEPARENT_BYTES: Final = 55
_TRACEPARENT: Final = b"\x26\0\x0btraceparent" + _U16.pack(TRACEPARENT_BYTES)
_PROPERTY_BYTES: Final = {
    **dict.fromkeys((0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((_SERVER_KEEP_ALIVE, _RECEIVE_MAXIMUM, 0x22), 2),
    **dict.fromkeys((_SESSION_EXPIRY, 0x27), 4),
}
_PROPERTY_STRINGS: Final = {**dict.fromkeys((0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), 1), 0x26: 2}
"""3.2.2.3: the properties of a CONNACK, by the bytes they take or the strings they hold."""


class MqttError(ZenthosError):
    """The broker refused, or broke MQTT 5; the connection is of no more use."""


class Message(NamedTuple):
    """What is published, or left as a last will."""

    topic: str
    payload: bytes


class Publish(msgspec.Struct, frozen=True, gc=False):
    """3.3: a message as it arrived; `packet_id` 0 means that it wants no acknowledgement.

    `flags` is the first byte of the packet: 8 redelivered (DUP), 6 QoS, 1 retained.
    `traceparent` is the user property of that name (W3C Trace Context), if any.
    """

    topic: bytes
    payload: bytes
    received_at: float
    packet_id: int
    flags: int
    traceparent: bytes = b""


class Puback(msgspec.Struct, frozen=True, gc=False):
    """3.4; a refusal says that the message was not taken."""

    packet_id: int
    reason: int = 0


class Connack(msgspec.Struct, frozen=True):
    """3.2; `receive_maximum` bounds what may be unacknowledged."""

    reason: int
    session_present: bool = False
    receive_maximum: int = MAX_PACKET_IDS
    keep_alive_s: int | None = None


class Suback(msgspec.Struct, frozen=True):
    """3.9; the worst reason of the filters."""

    reason: int


class Disconnect(msgspec.Struct, frozen=True):
    """3.14; the broker ends the connection and says why."""

    reason: int


class Pingresp(msgspec.Struct, frozen=True):
    """3.13."""


Packet = Publish | Puback | Connack | Suback | Disconnect | Pingresp


def reason_text(reason: int) -> str:
    """A reason code for people: `not authorized (0x87)`."""
    return f"{REASONS.get(reason, 'reason')} (0x{reason:02x})"


def encode_connect(
    client_id: str,
    username: str,
    password: str,
    *,
    keep_alive_s: int,
    clean_start: bool,
    session_expiry_s: int = 0,
    receive_maximum: int | None = None,
    will: Message | None = None,
) -> bytes:
    """3.1; `receive_maximum` None leaves it to the broker, a will is at QoS 1 and sent at once."""
    flags = 0xC0 | clean_start << 1 | (0x0C if will else 0)  # user name, password, will at QoS 1
    properties = b""
    if session_expiry_s:
        properties += bytes((_SESSION_EXPIRY,)) + _U32.pack(session_expiry_s)
    if receive_maximum is not None:
        properties += bytes((_RECEIVE_MAXIMUM,)) + _U16.pack(receive_maximum)
    last_will = b"\0" + _string(will.topic) + _binary(will.payload) if will else b""
    return _packet(
        0x10,
        _string("MQTT")
        + bytes((5, flags))
        + _U16.pack(keep_alive_s)
        + _varint(len(properties))
        + properties
        + _string(client_id)
        + last_will
        + _string(username)
        + _string(password),
    )


def encode_subscribe(packet_id: int, filters: Iterable[str]) -> bytes:
    """3.8, at QoS 1; retain flags as published, and no retained message for subscribing (3.8.3.1).

    Else each new connection would be sent the last retained status or reading of every device.
    """
    body = b"".join(_string(name) + b"\x29" for name in filters)
    return _packet(0x82, _U16.pack(packet_id) + b"\0" + body)


def encode_publish(message: Message, packet_id: int) -> bytes:
    """3.3, at QoS 1 and without properties."""
    topic, payload = message
    head = _string(topic) + _U16.pack(packet_id) + b"\0"
    return b"\x32" + _varint(len(head) + len(payload)) + head + payload


def encode_pubacks(packet_ids: Iterable[int]) -> bytes:
    """3.4, one for each."""
    pack = _PUBACK_PACKET.pack
    return b"".join([pack(_PUBACK_HEAD, packet_id) for packet_id in packet_ids])


class PacketReader:
    """Cuts a stream of bytes into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, received_at: float = 0.0) -> list[Packet]:
        """Packets that are complete with `data`; raises what `split` does."""
        buffer = self._rest + data
        packets, taken = split(buffer, received_at)
        self._rest = buffer[taken:]
        return packets


def split(buffer: bytes, received_at: float) -> tuple[list[Packet], int]:
    """Take the whole packets off a buffer; returns them and how many bytes they took.

    Raises:
        MqttError: the bytes are no packets that a broker may send.
    """
    packets: list[Packet] = []
    append, size, start = packets.append, len(buffer), 0
    while size - start >= 2:
        length, body = buffer[start + 1], start + 2
        if length >= 0x80:
            if size - start > 2 and buffer[body] < 0x80:  # two bytes, as a reading takes
                length, body = length & 0x7F | buffer[body] << 7, body + 1
            elif varint := _read_varint(buffer, start + 1):
                length, body = varint
            else:
                break
        end = body + length
        if end > size:
            break
        first = buffer[start]
        if first & 0xF0 == _PUBLISH:
            append(_parse_publish(buffer, first, body, end, received_at))
        elif first == _PUBACK and length == 2:  # nearly all that a publisher is sent
            append(Puback(buffer[body] << 8 | buffer[body + 1]))
        else:
            append(_parse_control(first, buffer[body:end]))
        start = end
    return packets, start


def _parse_publish(buffer: bytes, first: int, start: int, end: int, received_at: float) -> Publish:
    topic_start = start + 2
    topic_end = end
    if topic_start <= end:
        topic_end = topic_start + (buffer[start] << 8 | buffer[start + 1])
    at = topic_end + 2 if first & 6 else topic_end
    if at >= end:
        raise MqttError("the broker sent a PUBLISH that ends within its header")
    packet_id = buffer[topic_end] << 8 | buffer[topic_end + 1] if first & 6 else 0
    topic = buffer[topic_start:topic_end]
    if not buffer[at]:  # no properties, as nearly always
        return Publish(topic, buffer[at + 1 : end], received_at, packet_id, first)
    where = _properties(buffer, at, end)
    trace = _traceparent(buffer[where])
    return Publish(topic, buffer[where.stop : end], received_at, packet_id, first, trace)


def _traceparent(properties: bytes) -> bytes:
    """The value of the user property `traceparent`, whose length is fixed; the first one counts."""
    _, _, rest = properties.partition(_TRACEPARENT)
    return rest[:TRACEPARENT_BYTES]


def _parse_control(first: int, body: bytes) -> Packet:
    match first:
        case 0x40 if len(body) >= 3:
            return Puback(int.from_bytes(body[:2]), body[2])
        case 0x20 if len(body) >= 3:
            found = _connack_numbers(body)
            return Connack(
                reason=body[1],
                session_present=bool(body[0] & 1),
                receive_maximum=found.get(_RECEIVE_MAXIMUM, MAX_PACKET_IDS),
                keep_alive_s=found.get(_SERVER_KEEP_ALIVE),
            )
        case 0x90 if reasons := body[_properties(body, 2, len(body)).stop :]:
            return Suback(max(reasons))
        case 0xE0:
            return Disconnect(body[0] if body else 0)
        case 0xD0:
            return Pingresp()
    raise MqttError(f"the broker sent an unexpected packet 0x{first:02x} of {len(body)} bytes")


def _properties(buffer: bytes, at: int, end: int) -> slice:
    """Where the properties lie whose length stands at `at` of a packet that ends at `end`."""
    length = _read_varint(buffer, at)
    if length is None or sum(length) > end:
        raise MqttError("the broker sent a packet that ends within its properties")
    return slice(length[1], sum(length))


def _connack_numbers(body: bytes) -> dict[int, int]:
    found, where = {}, _properties(body, 2, len(body))
    at = where.start
    while at < where.stop:
        identifier, value_at = body[at], at + 1
        at = value_at + _PROPERTY_BYTES.get(identifier, 0)
        if at > value_at:
            found[identifier] = int.from_bytes(body[value_at:at])
        for _ in range(_PROPERTY_STRINGS.get(identifier, 0)):
            at += 2 + int.from_bytes(body[at : at + 2])
        if at == value_at or at > where.stop:
            raise MqttError(f"the broker sent a malformed property 0x{identifier:02x}")
    return found


def _read_varint(buffer: bytes, at: int) -> tuple[int, int] | None:
    """1.5.5: the value and where it ends; None where the buffer ends first."""
    value = 0
    for index, byte in enumerate(buffer[at : at + 4]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    if len(buffer) >= at + 4:
        raise MqttError("the broker sent a length of more than four bytes")
    return None


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(text: str) -> bytes:
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    return _U16.pack(len(data)) + data
