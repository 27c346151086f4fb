"""Device messages, by the wire rules."""

import json
import math
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import (
    EARLIEST_EPOCH_S,
    MAX_AHEAD_S,
    MAX_PAYLOAD_BYTES,
    DeviceStatus,
    Inference,
    Log,
    Status,
    Telemetry,
    event_time,
    nesting,
    parse_payload,
)
from zenthos_core.topics import MessageType

MESSAGE_ID = "0b7e1c1e-3f4a-4b8e-9d57-1f2e3d4c5b6a"
TELEMETRY: dict[str, Any] = {
    "message_id": MESSAGE_ID,
    "device_id": "field-1",
    "timestamp": 1_728_561_234,
    "sensors": {"soil_moisture": 41.5, "temperature": 22},
}


def telemetry(**changes: Any) -> bytes:
    return json.dumps({**TELEMETRY, **changes}).encode()


def reason(payload: bytes, kind: str = "telemetry") -> str:
    with pytest.raises(InvalidMessageError) as caught:
        parse_payload(kind, payload)
    return caught.value.reason


def test_telemetry() -> None:
    message = parse_payload("telemetry", telemetry(seq=7, backlog=True, signal_strength=-61))
    assert message == Telemetry(
        UUID(MESSAGE_ID),
        "field-1",
        {"soil_moisture": 41.5, "temperature": 22.0},
        timestamp=1_728_561_234,
        seq=7,
        backlog=True,
        signal_strength=-61,
    )


def test_other_messages() -> None:
    base = {"message_id": MESSAGE_ID, "device_id": "field-1"}
    status = parse_payload("status", json.dumps({**base, "status": "offline"}).encode())
    assert isinstance(status, Status)
    assert status.status is DeviceStatus.OFFLINE
    inference = {**base, "model_version": "m-1", "result": {"class": "skip"}, "confidence": 0.9}
    assert isinstance(parse_payload("inference", json.dumps(inference).encode()), Inference)
    log = {**base, "level": "error", "message": "sensor lost"}
    assert isinstance(parse_payload("logs", json.dumps(log).encode()), Log)


def test_rule_1_a_new_field_is_optional() -> None:
    for struct, required in (
        (Telemetry, {"message_id", "device_id", "sensors"}),
        (Status, {"message_id", "device_id", "status"}),
        (Inference, {"message_id", "device_id", "model_version", "result", "confidence"}),
        (Log, {"message_id", "device_id", "level", "message"}),
    ):
        fields = struct.__struct_fields__
        optional = len(struct.__struct_defaults__)
        assert set(fields[: len(fields) - optional]) == required


def test_rule_2_unknown_fields_are_ignored() -> None:
    assert parse_payload("telemetry", telemetry(x={"y": [1]})) == parse_payload(
        "telemetry", telemetry()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"sensors": {"temperature": "21.5"}},
        {"sensors": {"temperature": True}},
        {"sensors": {"temperature": None}},
        {"sensors": [1]},
        {"sensors": None},
        {"timestamp": "1728561234"},
        {"message_id": 5},
        {"message_id": "not a uuid"},
        {"device_id": None},
        {"seq": -1},
        {"seq": 2**63},
        {"seq": 1.5},
        {"backlog": 1},
        {"firmware_version": ""},
        {"firmware_version": "v" * 65},
    ],
    ids=str,
)
def test_rule_3_nothing_is_guessed(changes: dict[str, Any]) -> None:
    assert reason(telemetry(**changes)) == "wrong_type"


@pytest.mark.parametrize("field", ["message_id", "device_id", "sensors"])
def test_rule_3_required_fields(field: str) -> None:
    content = {name: value for name, value in TELEMETRY.items() if name != field}
    assert reason(json.dumps(content).encode()) == "wrong_type"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_rule_4_not_json(number: str) -> None:
    payload = telemetry().replace(b"41.5", number.encode())
    assert reason(payload) == "malformed_json"


def test_rule_4_number_that_no_double_holds() -> None:
    assert reason(telemetry().replace(b"41.5", b"1e999")) == "wrong_type"


@pytest.mark.parametrize("confidence", [-0.1, 1.1])
def test_confidence_is_a_probability(confidence: float) -> None:
    content = {
        **{"message_id": MESSAGE_ID, "device_id": "field-1", "model_version": "m-1"},
        **{"result": {}, "confidence": confidence},
    }
    assert reason(json.dumps(content).encode(), "inference") == "wrong_type"


def test_rule_8_nul_character() -> None:
    assert reason(telemetry(firmware_version="v\u0000")) == "nul_character"


@pytest.mark.parametrize(("depth", "fits"), [(63, True), (64, False)])
def test_rule_9_nesting(depth: int, fits: bool) -> None:
    noise = ', "text": "[{[{ \\" [{[{"' * 40
    payload = telemetry()[:-1] + noise.encode() + b', "new": %b%b}' % (b"[" * depth, b"]" * depth)
    if fits:
        assert isinstance(parse_payload("telemetry", payload), Telemetry)
    else:
        with pytest.raises(InvalidMessageError, match="nests more than 64 deep"):
            parse_payload("telemetry", payload)


def test_rule_9_any_bytes_are_read_in_linear_time() -> None:
    for pattern in (b'\\"', b'"', b'"\\', b"[", b'["'):
        assert nesting(pattern * (MAX_PAYLOAD_BYTES // len(pattern)) + b"\\") >= 0


def test_sizes() -> None:
    assert reason(b"") == "empty_payload"
    assert reason(b" " * (MAX_PAYLOAD_BYTES + 1)) == "payload_too_large"


@pytest.mark.parametrize("payload", [b"{", b"\xff", b"x", b'{"a":' * 10_000, b"\x00"])
def test_malformed(payload: bytes) -> None:
    assert reason(payload) == "malformed_json"


@pytest.mark.parametrize("payload", [b"[]", b"null", b"5", b'"text"'])
def test_no_object(payload: bytes) -> None:
    assert reason(payload) == "wrong_type"


@given(st.binary(max_size=200), st.sampled_from(MessageType))
def test_any_bytes_are_a_message_or_refused(payload: bytes, kind: MessageType) -> None:
    with suppress(InvalidMessageError):
        assert parse_payload(kind, payload).device_id is not None


RECEIVED = 1_795_000_000.0


@pytest.mark.parametrize(
    ("timestamp", "suspect"),
    [
        (None, True),
        (0, True),
        (EARLIEST_EPOCH_S - 1, True),
        (EARLIEST_EPOCH_S, False),
        (RECEIVED, False),
        (RECEIVED + MAX_AHEAD_S, False),
        (RECEIVED + MAX_AHEAD_S + 1, True),
        (-1, True),
        (10**18, True),
    ],
)
def test_rule_7_clocks(timestamp: float | None, suspect: bool) -> None:
    expected = RECEIVED if suspect else timestamp
    assert event_time(timestamp, RECEIVED) == (expected, suspect)


@given(st.none() | st.floats(allow_nan=True) | st.integers())
def test_rule_7_the_time_is_always_usable(timestamp: float | None) -> None:
    time, _ = event_time(timestamp, RECEIVED)
    assert math.isfinite(time)
    assert EARLIEST_EPOCH_S <= time <= RECEIVED + MAX_AHEAD_S
