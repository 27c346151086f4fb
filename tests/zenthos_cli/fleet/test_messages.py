from hypothesis import given
from hypothesis import strategies as st

from zenthos_cli.fleet.messages import Device, Sample, message_id, status, telemetry
from zenthos_core.messages import DeviceStatus, Status, Telemetry, parse_payload
from zenthos_core.topics import parse_topic

DEVICE = Device("farm-0001", "esp32-s3", "v0.1.0")


def test_telemetry_is_what_the_contract_says() -> None:
    sample = Sample(1_700_000_000, {"temperature": 21.5, "rainfall_mm": 0.0}, 7, -61.0)
    message = telemetry(DEVICE, sample, salt="test", backlog=True)
    assert parse_topic(message.topic) == ("esp32-s3", "farm-0001", "telemetry")
    assert parse_payload("telemetry", message.payload) == Telemetry(
        message_id=message_id("farm-0001", 1_700_000_000, "test"),
        device_id="farm-0001",
        sensors={"temperature": 21.5, "rainfall_mm": 0.0},
        timestamp=1_700_000_000,
        firmware_version="v0.1.0",
        device_model="esp32-s3",
        signal_strength=-61.0,
        seq=7,
        backlog=True,
    )


def test_what_is_unknown_is_left_out() -> None:
    message = telemetry(
        DEVICE._replace(firmware_version=None), Sample(1, {}), salt="", backlog=False
    )
    assert not {b"null", b"backlog", b"seq", b"firmware"} & set(message.payload.split(b'"'))
    assert b"null" not in message.payload


def test_a_wrong_clock_changes_the_timestamp_and_not_the_id() -> None:
    sample = Sample(1_700_000_000, {})
    right = parse_payload("telemetry", telemetry(DEVICE, sample, salt="", backlog=False).payload)
    wrong = telemetry(DEVICE, sample, salt="", backlog=False, clock=12).payload
    found = parse_payload("telemetry", wrong)
    assert isinstance(found, Telemetry)
    assert isinstance(right, Telemetry)
    assert (found.timestamp, found.message_id) == (12, right.message_id)


def test_status_is_what_the_contract_says() -> None:
    message = status(DEVICE, "offline", now=1_700_000_000.5, salt="")
    found = parse_payload("status", message.payload)
    assert isinstance(found, Status)
    assert found.status is DeviceStatus.OFFLINE
    assert parse_topic(message.topic).message_type == "status"


@given(st.text(min_size=1), st.integers(0, 2**40), st.text())
def test_an_id_is_a_version_4_uuid_and_the_same_again(device: str, time: int, salt: str) -> None:
    found = message_id(device, time, salt)
    assert found.version == 4
    assert found == message_id(device, time, salt)
    assert found != message_id(device, time + 1, salt)
    assert found != message_id(device, time, salt + "x")
