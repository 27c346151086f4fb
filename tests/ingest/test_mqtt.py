"""The codec against its own encoder and against hand-made bytes of the MQTT 5 specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import mqtt
from ingest.mqtt import Connack, Pingresp, ProtocolError, Publish, RefusedError, Suback, split

MESSAGE = st.tuples(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    st.binary(max_size=300),
    st.integers(1, 65_535),
)


@given(st.lists(MESSAGE, max_size=20), st.integers(1, 500))
def test_messages_survive_any_cut_of_the_stream(
    messages: list[tuple[str, bytes, int]], read_bytes: int
) -> None:
    stream = b"".join(mqtt.encode_publish(*message) for message in messages)
    got, buffer = [], b""
    for at in range(0, len(stream), read_bytes):
        buffer += stream[at : at + read_bytes]
        packets, taken = split(buffer, 7.0)
        buffer = buffer[taken:]
        got += packets
    assert buffer == b""
    assert got == [Publish(t.encode(), p, 7.0, i, 0x32) for t, p, i in messages]


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_protocol_errors(data: bytes) -> None:
    try:
        _, taken = split(data, 0.0)
    except (ProtocolError, RefusedError):
        return
    assert 0 <= taken <= len(data)


def test_flags_and_properties_of_a_publish() -> None:
    # DUP, QoS 1, RETAIN; packet id 10; one user property of 7 bytes
    body = b"\0\1t\0\x0a\x07\x26\0\1a\0\1b" + b"payload"
    packets, _ = split(b"\x3b" + bytes([len(body)]) + body, 0.0)
    (message,) = packets
    assert isinstance(message, Publish)
    assert (message.topic, message.payload, message.packet_id) == (b"t", b"payload", 10)
    assert message.flags == 0x3B


def test_a_message_at_qos_0_wants_no_acknowledgement() -> None:
    packets, _ = split(b"\x30\x05\0\1t\0x", 0.0)
    assert packets == [Publish(b"t", b"x", 0.0, 0, 0x30)]


def test_acknowledgements_are_four_bytes_each() -> None:
    assert mqtt.encode_pubacks([1, 0x1234]) == b"\x40\x02\x00\x01\x40\x02\x12\x34"


def test_answers_of_the_broker() -> None:
    connack = b"\x20\x06\x01\x00\x03\x13\x00\x1e"
    suback = b"\x90\x04\x00\x01\x00\x01"
    packets, taken = split(connack + suback + b"\xd0\x00", 0.0)
    assert packets == [Connack(session_present=True, keep_alive_s=30), Suback(), Pingresp()]
    assert taken == len(connack + suback) + 2


@pytest.mark.parametrize(
    "refusal", [b"\x20\x03\x00\x87\x00", b"\x90\x04\x00\x01\x00\x87", b"\xe0\x01\x8e", b"\xe0\x00"]
)
def test_refusals_are_errors(refusal: bytes) -> None:
    with pytest.raises(RefusedError, match="reason 0x"):
        split(refusal, 0.0)


@pytest.mark.parametrize(
    "nonsense", [b"\x30\x02\0\x09", b"\x32\xff\xff\xff\xff\x7f", b"\x00\x00", b"\x20\x01\x00"]
)
def test_nonsense_is_a_protocol_error(nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        split(nonsense, 0.0)
