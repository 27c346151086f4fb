"""The topic grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_core import topics
from zenthos_core.errors import InvalidMessageError
from zenthos_core.topics import MessageType, Topic, parse_topic

device_ids = st.from_regex(topics.DEVICE_ID, fullmatch=True)
device_models = st.from_regex(topics.DEVICE_MODEL, fullmatch=True)


@given(device_models, device_ids, st.sampled_from(MessageType))
def test_parses_what_the_grammar_holds(model: str, device: str, kind: MessageType) -> None:
    assert parse_topic(f"zenthos/{model}/{device}/{kind}") == Topic(model, device, kind)


def test_topics_of_devices() -> None:
    assert parse_topic(topics.telemetry_topic("esp32-s3", "field-1")).message_type == "telemetry"
    assert parse_topic(topics.status_topic("esp32-s3", "field-1")).message_type == "status"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "zenthos",
        "zenthos/esp32-s3/field-1",
        "zenthos/esp32-s3/field-1/telemetry/more",
        "zenthos/esp32-s3/field-1/ota",
        "zenthos/esp32-s3/field-1/TELEMETRY",
        "other/esp32-s3/field-1/telemetry",
        "zenthos//field-1/telemetry",
        "zenthos/esp32-s3/Field-1/telemetry",
        "zenthos/esp32-s3/ab/telemetry",
        "zenthos/esp32-s3/field-1\n/telemetry",
        f"zenthos/esp32-s3/{'a' * 64}/telemetry",
        "zenthos/esp32_s3/field-1/telemetry",
        "zenthos/+/#/telemetry",
        "zenthos/esp32-s3/\u0663\u0663\u0663/telemetry",
    ],
)
def test_refuses_what_it_does_not(topic: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        parse_topic(topic)
    assert caught.value.reason == "unknown_topic"
