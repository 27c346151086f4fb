"""Payloads as devices send them and as they should not, for property tests of bronze."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import polars as pl
from hypothesis import strategies as st

from zenthos_assets.bronze.transforms import to_frame

RECEIVED = datetime(2026, 11, 20, 5, 30, tzinfo=UTC)
EPOCH_S = int(RECEIVED.timestamp())

numbers = st.one_of(
    st.integers(-5, 40),
    st.integers(-(10**20), 10**20),
    st.floats(-50, 120).map(lambda value: round(value, 2)),
    st.floats(-1e-3, 1e-3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, -0.5, 1e22, 123456789012345.6]),
)
words = st.one_of(
    st.sampled_from(["v1.0.0", "esp32-s3", "", "ä" * 64, "ä" * 65, "x" * 64, "x" * 65, 'a"b', "€"]),
    st.text(max_size=8),
)
ids = st.one_of(
    st.uuids().map(str),
    st.uuids().map(lambda value: str(value).upper()),
    st.uuids().map(lambda value: value.hex),
    st.just(str(UUID(int=7))),
    st.just("no-uuid"),
)
times = st.one_of(
    st.integers(EPOCH_S - 10**6, EPOCH_S + 700),
    st.floats(EPOCH_S - 1000, EPOCH_S + 700),
    st.sampled_from([0, 1577836799, 1577836800, EPOCH_S + 600, EPOCH_S + 601, -1, 10**18]),
)
values = st.one_of(numbers, words, st.booleans(), st.none(), ids, st.just([]), st.just({"a": 1}))
sensor_names = st.sampled_from(
    ["soil_moisture", "temperature", "rainfall_mm", "ph", "ec", "a.b", "x[0]", "ö", 'q"', "Z"]
)
fields: dict[str, st.SearchStrategy[Any]] = {
    "message_id": ids,
    "device_id": st.sampled_from(["soil-1", "soil-1", "soil-1", "soil-2"]),
    "timestamp": times,
    "sensors": st.dictionaries(sensor_names, numbers, max_size=4),
    "firmware_version": words,
    "device_model": words,
    "model_version": words,
    "signal_strength": numbers,
    "seq": st.one_of(st.integers(0, 2**63), st.integers(-2, 2), numbers),
    "backlog": st.booleans(),
    "ack": st.booleans(),
    "unknown": values,
}
REQUIRED = ("message_id", "device_id", "sensors")


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message that is mostly well-formed."""
    optional = [name for name in fields if name not in REQUIRED]
    chosen = [*REQUIRED, *draw(st.lists(st.sampled_from(optional), unique=True, max_size=6))]
    message = {name: draw(fields[name]) for name in chosen}
    if draw(st.integers(0, 9)) == 0:
        message[draw(st.sampled_from([*fields]))] = draw(values)
    if draw(st.integers(0, 9)) == 0:
        del message[draw(st.sampled_from([*message]))]
    return message


encoders = st.sampled_from(
    [
        msgspec.json.encode,
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent=1, ensure_ascii=False).encode(),
        lambda value: b" " + msgspec.json.encode(value) + b"\n",
    ]
)


@st.composite
def alike(draw: st.DrawFn) -> list[bytes]:
    """Payloads of one structure, whose values differ."""
    encode = draw(encoders)
    first = draw(messages())
    others = [
        {name: draw(fields[name]) if name != "sensors" else sensors for name in first}
        for sensors in draw(
            st.lists(
                st.fixed_dictionaries(dict.fromkeys(first["sensors"], numbers))
                if isinstance(first.get("sensors"), dict)
                else st.just({}),
                max_size=3,
            )
        )
    ]
    return [encode(message) for message in [first, *others]]


broken = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"[]",
            b"null",
            b'"text"',
            b"12",
            b"1e5",
            b"{",
            b'{"a":1}{"a":1}',
            b'{"a":1,"a":2}',
            b'{"a":01}',
            b'{"":1}',
            b'{"a":"\xff"}',
            b"[" * 70,
            b'{"a":[' + b"1," * 200 + b"1]}",
        ]
    ),
)
payload_lists = st.lists(st.one_of(alike(), alike(), st.lists(broken, max_size=2)), max_size=6).map(
    lambda groups: [payload for group in groups for payload in group]
)


def outbox(payloads: Sequence[bytes], device_id: str = "soil-1") -> pl.DataFrame:
    """Rows as the outbox gives them."""
    topic = f"zenthos/esp32-s3/{device_id}/telemetry"
    moments = [RECEIVED + timedelta(microseconds=n * 1001) for n in range(len(payloads))]
    return to_frame(
        [
            (topic, payload, moment, moment + timedelta(milliseconds=5), 1, False, n % 7 == 0)
            for n, (payload, moment) in enumerate(zip(payloads, moments, strict=True))
        ]
    )
