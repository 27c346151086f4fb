"""What the benches send is what devices send."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import messages
from zenthos_core import mqtt
from zenthos_core.messages import Telemetry, parse_payload

NOW_S = 1_795_400_000


def published(device: int, packet_number: int, sent: int) -> tuple[mqtt.Publish, Telemetry]:
    message_id = next(messages.message_ids("seed", 1))
    template = messages.packet_template(device)
    packet = messages.fill(template, packet_number, message_id, NOW_S, sent)
    [publish] = mqtt.PacketReader().feed(packet)
    assert isinstance(publish, mqtt.Publish)
    reading = parse_payload("telemetry", publish.payload)
    assert isinstance(reading, Telemetry)
    assert str(reading.message_id).encode() == message_id
    return publish, reading


@given(st.integers(0, 99_999), st.integers(0, 8_999_999))
def test_a_filled_template_is_a_valid_reading_of_its_device(device: int, sent: int) -> None:
    publish, reading = published(device, sent, sent)
    assert reading.device_id == messages.device_id(device)
    assert publish.topic.split(b"/")[2] == reading.device_id.encode()
    assert (reading.timestamp, reading.seq) == (NOW_S, messages.FIRST_SEQ + sent)
    assert 280 <= len(publish.payload) <= 320


@pytest.mark.parametrize(("number", "packet_id"), [(0, 1), (65_534, 65_535), (65_535, 1)])
def test_packet_ids_are_never_zero(number: int, packet_id: int) -> None:
    publish, _ = published(1, number, 0)
    assert publish.packet_id == packet_id


def test_ids_are_unique_uuids_and_the_same_again() -> None:
    ids = list(messages.message_ids("a", 1_000))
    assert ids == list(messages.message_ids("a", 1_000))
    assert len({*ids, *messages.message_ids("b", 1_000)}) == 2_000
    assert {uuid.UUID(each.decode()).version for each in ids} == {4}


@given(st.integers(0, 50), st.integers(1, 60))
def test_acknowledgements_are_counted_over_any_cut(count: int, read_bytes: int) -> None:
    stream = b"\x40\x02\x00\x01" * count + b"\x40\x03\x00\x02\x10"
    counted, buffer = 0, b""
    for at in range(0, len(stream), read_bytes):
        more, buffer = messages.count_acknowledgements(buffer + stream[at : at + read_bytes])
        counted += more
    assert (counted, buffer) == (count + 1, b"")
