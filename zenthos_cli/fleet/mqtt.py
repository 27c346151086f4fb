"""The part of MQTT 5.0 that a sensor needs, as bytes: no sockets, no clocks.

Section numbers are those of the OASIS standard of 7 March 2019.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from zenthos_core.errors import ZenthosError

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
MAX_PACKET_IDS: Final = 65_535
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
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    QUOTA_EXCEEDED: "quota exceeded",
    0x99: "payload format invalid",
}
"""2.4, those that a publisher may meet."""


class MqttProtocolError(ZenthosError):
    """The broker sent what MQTT 5.0 does not allow here."""


class Message(NamedTuple):
    """What is published, at QoS 1."""

    topic: str
    payload: bytes


class ConnAck(NamedTuple):
    """3.2; `receive_maximum` bounds what may be unacknowledged."""

    reason: int
    receive_maximum: int = MAX_PACKET_IDS


class PubAck(NamedTuple):
    """3.4; a reason of 0x80 and above says that the message was not taken."""

    packet_id: int
    reason: int = 0


class Disconnect(NamedTuple):
    """3.14; the broker ends the connection and says why."""

    reason: int


class PingResp(NamedTuple):
    """3.13."""


Packet = ConnAck | PubAck | Disconnect | PingResp


def reason_text(reason: int) -> str:
    """A reason code for people: `not authorized (0x87)`."""
    return f"{REASONS.get(reason, 'refused')} (0x{reason:02x})"


def connect(
    client_id: str, username: str, password: str, *, keep_alive_s: int, will: Message
) -> bytes:
    """3.1: a clean start, and a last will at QoS 1 that the broker sends at once."""
    flags = 0x80 | 0x40 | 0x08 | 0x04 | 0x02  # name, password, will QoS 1, will, clean start
    body = b"".join(
        [
            _text("MQTT"),
            struct.pack("!BBHB", 5, flags, keep_alive_s, 0),
            _text(client_id),
            b"\0",  # no will properties
            _text(will.topic),
            _binary(will.payload),
            _text(username),
            _text(password),
        ]
    )
    return b"\x10" + _length(len(body)) + body


def publish(message: Message, packet_id: int) -> bytes:
    """3.3: QoS 1, without properties."""
    topic = message.topic.encode()
    head = struct.pack("!H", len(topic)) + topic + struct.pack("!HB", packet_id, 0)
    return b"\x32" + _length(len(head) + len(message.payload)) + head + message.payload


class PacketReader:
    """Cuts a stream of bytes into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Packets that are complete with `data`; MqttProtocolError for a malformed one."""
        self._buffer += data
        buffer, start = bytes(self._buffer), 0
        try:
            while (body := _body(buffer, start)) is not None:
                packet = _parse(buffer[start], buffer[body.start : body.stop])
                start = body.stop
                yield packet
        finally:
            del self._buffer[:start]


def _body(buffer: bytes, start: int) -> slice | None:
    """Where the body of the packet at `start` lies; None while it is incomplete (2.1.4)."""
    if len(buffer) >= start + 4 and buffer[start : start + 2] == b"\x40\x02":  # most are this one
        return slice(start + 2, start + 4)
    length = 0
    for i, byte in enumerate(buffer[start + 1 : start + 5]):
        length |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            end = start + 2 + i + length
            return slice(start + 2 + i, end) if end <= len(buffer) else None
    if len(buffer) >= start + 5:
        raise MqttProtocolError("the broker sent a length of more than four bytes")
    return None


def _parse(kind: int, body: bytes) -> Packet:
    try:
        match kind:
            case 0x40:
                reason = body[2] if len(body) > 2 else 0
                return PubAck(int.from_bytes(body[:2], "big"), reason)
            case 0x20:
                properties = dict(_properties(body, 2))
                return ConnAck(body[1], int(properties.get(0x21, MAX_PACKET_IDS)))
            case 0xE0:
                return Disconnect(body[0] if body else 0)
            case 0xD0:
                return PingResp()
    except (IndexError, KeyError, struct.error):
        raise MqttProtocolError(f"the broker sent a malformed packet 0x{kind:02x}") from None
    raise MqttProtocolError(f"the broker sent an unexpected packet 0x{kind:02x}")


_NUMBERS: Final = {
    **dict.fromkeys((0x24, 0x25, 0x28, 0x29, 0x2A), "!B"),
    **dict.fromkeys((0x13, 0x21, 0x22), "!H"),
    **dict.fromkeys((0x11, 0x27), "!I"),
}
_STRINGS: Final = {0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, 0x1F: 1, 0x26: 2}
"""2.2.2.2: the properties of CONNACK, numbers by their format, strings by how many."""


def _properties(body: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Numeric properties of a CONNACK."""
    length, at = _varint(body, at)
    end = at + length
    while at < end:
        identifier = body[at]
        at += 1
        if identifier in _NUMBERS:
            (value,) = struct.unpack_from(_NUMBERS[identifier], body, at)
            at += struct.calcsize(_NUMBERS[identifier])
            yield identifier, value
            continue
        for _ in range(_STRINGS[identifier]):
            (size,) = struct.unpack_from("!H", body, at)
            at += 2 + size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5) and where it ends."""
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        encoded.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(encoded)


def _binary(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _text(text: str) -> bytes:
    return _binary(text.encode())
