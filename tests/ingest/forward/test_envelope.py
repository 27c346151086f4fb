"""What consumers get of a row: everything named, the payload byte for byte."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.forward.envelope import Position, Row, encode, envelope_of
from tests.ingest.messages import DEVICE, inference, log, status, telemetry, topic
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import parse_payload

RECEIVED = datetime(2026, 11, 20, 5, 30, tzinfo=UTC)
ID = "6fa459ea-ee8a-4ca4-894e-db77e160355e"
MAKERS = {"telemetry": telemetry, "status": status, "inference": inference, "logs": log}


def row(payload: bytes, message_type: str = "telemetry") -> Row:
    return Row(Position(700, 1), message_type, topic(message_type).decode(), payload, RECEIVED)


@pytest.mark.parametrize("message_type", MAKERS)
def test_names_id_type_device_and_time(message_type: str) -> None:
    payload = MAKERS[message_type](message_id=ID, timestamp=1_795_000_000)
    document = msgspec.json.decode(encode(envelope_of(row(payload, message_type))))
    assert document == {
        "id": ID,
        "type": message_type,
        "device_id": DEVICE,
        "timestamp": 1_795_000_000,
        "payload": msgspec.json.decode(payload),
    }


@pytest.mark.parametrize("timestamp", [..., None, 0, 1e32, 10**400, RECEIVED.timestamp() + 601])
def test_an_unusable_time_becomes_that_of_receipt(timestamp: object) -> None:
    payload = telemetry(timestamp=5)
    if timestamp is not ...:
        payload = payload.replace(b'"timestamp":5', f'"timestamp":{timestamp}'.encode())
        payload = payload.replace(b"None", b"null")
    assert envelope_of(row(payload)).timestamp == RECEIVED.timestamp()


def test_an_id_is_the_same_however_it_is_written() -> None:
    payload = telemetry(message_id=UUID(ID).hex.upper())
    assert envelope_of(row(payload)).id == ID


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"device_id":"x"}', b"{" * 100_000])
def test_what_is_no_device_message_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        envelope_of(row(payload))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    extra=st.dictionaries(st.text(min_size=1), json_values, max_size=4),
    timestamp=st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    indent=st.sampled_from([-1, 0, 2]),
    around=st.sampled_from([b"", b" ", b"\r\n"]),
)
def test_every_accepted_payload_travels_untouched(
    extra: dict[str, object], timestamp: float | None, indent: int, around: bytes
) -> None:
    fields = {"message_id": ID, "device_id": DEVICE, "timestamp": timestamp, "sensors": {}}
    document = msgspec.json.encode({f"x_{key}": value for key, value in extra.items()} | fields)
    payload = around + msgspec.json.format(document, indent=indent) + around
    try:
        parse_payload("telemetry", payload)
    except InvalidMessageError:
        return  # quarantined: never in the outbox
    envelope = envelope_of(row(payload))
    assert bytes(envelope.payload) == payload
    assert encode(envelope).endswith(b'"payload":' + payload + b"}")
    assert msgspec.json.decode(encode(envelope))["id"] == ID
