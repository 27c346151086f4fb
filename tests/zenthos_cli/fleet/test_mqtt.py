from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_cli.fleet.mqtt import (
    ConnAck,
    Disconnect,
    Message,
    MqttProtocolError,
    PacketReader,
    PingResp,
    PubAck,
    connect,
    publish,
)

# A CONNACK as Mosquitto 2.0.11 sends it: topic alias maximum, receive maximum, reason string.
CONNACK = bytes.fromhex("20 0e 00 00 0b 22 000a 21 0064 1f 0002 6f6b")
STREAM = CONNACK + b"\x40\x02\x00\x01" + b"\x40\x03\x12\x34\x10" + b"\xd0\x00" + b"\xe0\x01\x8b"
PACKETS = [ConnAck(0, 100), PubAck(1), PubAck(0x1234, 0x10), PingResp(), Disconnect(0x8B)]


@given(st.lists(st.integers(0, len(STREAM))))
def test_packets_come_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = PacketReader()
    found = [packet for begin, end in pairwise(edges) for packet in reader.feed(STREAM[begin:end])]
    assert found == PACKETS


@given(st.binary(max_size=200))
def test_any_bytes_give_packets_or_a_protocol_error(data: bytes) -> None:
    with suppress(MqttProtocolError):
        list(PacketReader().feed(data))


def test_a_length_of_five_bytes_is_refused() -> None:
    with pytest.raises(MqttProtocolError, match="four bytes"):
        list(PacketReader().feed(b"\x20\xff\xff\xff\xff\x01"))


def test_publish_is_as_in_the_standard() -> None:
    assert publish(Message("a/b", b"hi"), 10) == bytes.fromhex("32 0a 0003 612f62 000a 00 6869")


def test_a_long_payload_has_a_length_of_two_bytes() -> None:
    packet = publish(Message("t", b"x" * 200), 1)
    assert packet[1:3] == b"\xce\x01"
    assert len(packet) == 3 + 206


def test_connect_is_as_in_the_standard() -> None:
    packet = connect("d1", "d1", "pw", keep_alive_s=60, will=Message("w", b"off"))
    assert packet == bytes.fromhex(
        "10 20 0004 4d515454 05 ce 003c 00 0002 6431 00 0001 77 0003 6f6666 0002 6431 0002 7077"
    )
