"""The codec against itself, noise, and hand-made bytes of the MQTT 5 specification."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_core import mqtt
from zenthos_core.mqtt import (
    Connack,
    Disconnect,
    Message,
    MqttError,
    Packet,
    PacketReader,
    Pingresp,
    Puback,
    Publish,
    Suback,
)

# A CONNACK as Mosquitto 2.0.11 sends it: topic alias maximum, receive maximum, reason string.
CONNACK = bytes.fromhex("20 0e 00 00 0b 22 000a 21 0064 1f 0002 6f6b")
RESUMED = bytes.fromhex("20 06 01 00 03 13 001e")  # session present, server keep alive 30 s
SUBACK = bytes.fromhex("90 05 0001 00 01 87")  # one of two filters is refused
# DUP, QoS 1, RETAIN; topic "t", packet id 10, one user property of 7 bytes
PUBLISH = bytes.fromhex("3b 14 0001 74 000a 07 26 0001 61 0001 62") + b"payload"
QOS_0 = bytes.fromhex("30 05 0001 74 00 78")
PUBACKS = (
    bytes.fromhex("40 02 0001") + bytes.fromhex("40 03 1234 10") + bytes.fromhex("40 04 0002 87 00")
)
STREAM = CONNACK + RESUMED + SUBACK + PUBLISH + QOS_0 + PUBACKS + bytes.fromhex("d000 e0018b e000")
PACKETS: list[Packet] = [
    Connack(0, receive_maximum=100),
    Connack(0, session_present=True, keep_alive_s=30),
    Suback(0x87),
    Publish(b"t", b"payload", 7.0, 10, 0x3B),
    Publish(b"t", b"x", 7.0, 0, 0x30),
    Puback(1),
    Puback(0x1234, 0x10),
    Puback(2, 0x87),
    Pingresp(),
    Disconnect(0x8B),
    Disconnect(0),
]
MESSAGE = st.builds(
    Message,
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    st.binary(max_size=300),
)


@given(st.lists(st.integers(0, len(STREAM))))
def test_packets_come_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = PacketReader()
    found = [
        packet for begin, end in pairwise(edges) for packet in reader.feed(STREAM[begin:end], 7.0)
    ]
    assert found == PACKETS


@given(st.lists(st.tuples(MESSAGE, st.integers(1, 65_535)), max_size=20), st.integers(1, 500))
def test_what_is_published_is_what_arrives(
    sent: list[tuple[Message, int]], read_bytes: int
) -> None:
    stream = b"".join(mqtt.encode_publish(message, packet_id) for message, packet_id in sent)
    reader, found = PacketReader(), []
    for at in range(0, len(stream), read_bytes):
        found += reader.feed(stream[at : at + read_bytes], 7.0)
    assert found == [Publish(m.topic.encode(), m.payload, 7.0, i, 0x32) for m, i in sent]


@given(st.binary(max_size=200))
def test_any_bytes_give_packets_or_an_error(data: bytes) -> None:
    with suppress(MqttError):
        _, taken = mqtt.split(data, 0.0)
        assert 0 <= taken <= len(data)


@given(st.sampled_from([0x20, 0x30, 0x32, 0x40, 0x90, 0xD0, 0xE0]), st.binary(max_size=30))
def test_any_body_gives_a_packet_or_an_error(first: int, body: bytes) -> None:
    with suppress(MqttError):
        packets, taken = mqtt.split(bytes((first, len(body))) + body, 0.0)
        assert (len(packets), taken) == (1, 2 + len(body))


@pytest.mark.parametrize(
    "nonsense",
    [
        "30 00",  # no topic
        "30 02 0009",  # a topic that goes on after the packet
        "30 03 0001 74",  # no properties
        "32 05 0001 74 000a",  # no properties after the packet id
        "32 06 0001 74 000a 05",  # properties that go on after the packet
        "20 01 00",
        "20 03 00 00 05",
        "20 05 00 00 02 21 00",  # half a number
        "20 04 00 00 01 7f",  # no such property
        "40 01 00",
        "90 03 0001 00",  # no reason
        "00 00",
        "82 02 0001",  # only clients send it
        "32 ff ff ff ff 7f",  # a length of five bytes
    ],
)
def test_nonsense_is_an_error(nonsense: str) -> None:
    with pytest.raises(MqttError, match="the broker sent"):
        mqtt.split(bytes.fromhex(nonsense), 0.0)


def test_connect_is_as_in_the_standard() -> None:
    will = Message("w", b"off")
    packet = mqtt.encode_connect("d1", "d1", "pw", keep_alive_s=60, clean_start=True, will=will)
    assert packet == bytes.fromhex(
        "10 20 0004 4d515454 05 ce 003c 00 0002 6431 00 0001 77 0003 6f6666 0002 6431 0002 7077"
    )


def test_connect_resumes_a_session() -> None:
    packet = mqtt.encode_connect(
        "c",
        "u",
        "p",
        keep_alive_s=60,
        clean_start=False,
        session_expiry_s=604_800,
        receive_maximum=65_535,
    )
    assert packet == bytes.fromhex(
        "10 1c 0004 4d515454 05 c0 003c 08 11 00093a80 21 ffff 0001 63 0001 75 0001 70"
    )


def test_subscribe_is_as_in_the_standard() -> None:
    assert mqtt.encode_subscribe(1, ["a/#"]) == bytes.fromhex("82 09 0001 00 0003 612f23 29")


def test_publish_is_as_in_the_standard() -> None:
    packet = mqtt.encode_publish(Message("a/b", b"hi"), 10)
    assert packet == bytes.fromhex("32 0a 0003 612f62 000a 00 6869")


def test_a_long_payload_has_a_length_of_two_bytes() -> None:
    packet = mqtt.encode_publish(Message("t", b"x" * 200), 1)
    assert packet[1:3] == b"\xce\x01"
    assert len(packet) == 3 + 206


def test_acknowledgements_are_four_bytes_each() -> None:
    assert mqtt.encode_pubacks([1, 0x1234]) == bytes.fromhex("40 02 0001 40 02 1234")


def test_reasons_are_for_people() -> None:
    assert mqtt.reason_text(0x87) == "not authorized (0x87)"
    assert mqtt.reason_text(0xFE) == "reason (0xfe)"
