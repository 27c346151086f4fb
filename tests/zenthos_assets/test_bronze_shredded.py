"""Readings from columns are those from JSON, row for row."""

import json
from collections import Counter
from itertools import pairwise
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings

from tests.zenthos_assets.bronze_messages import EPOCH_S, outbox, payload_lists
from zenthos_assets import parquet
from zenthos_assets.bronze import codec, reader, shredded
from zenthos_assets.bronze.days import rows_per_day
from zenthos_assets.bronze.readings import READING_SCHEMA, Parsed, read_rows
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.transforms import bucket_of, reading_day
from zenthos_core.errors import ArchiveError


def telemetry(number: int = 1, **fields: Any) -> bytes:
    message = {
        "message_id": str(UUID(int=number)),
        "device_id": "soil-1",
        "timestamp": EPOCH_S,
        "sensors": {"temperature": 20.5},
        **fields,
    }
    present = {name: value for name, value in message.items() if value != "absent"}
    return json.dumps(present, ensure_ascii=False).encode()


def exactly(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    ordered = codec.in_order(frame)
    received = ordered["received_at"].dt.epoch("us")
    rows = zip(range(len(ordered)), ordered["topic"], ordered["payload"], received, strict=True)
    readings, malformed = read_rows(rows)
    return readings.drop("row"), malformed.drop("row")


def read(frame: pl.DataFrame) -> Parsed:
    """Both ways, compared."""
    readings, malformed = exactly(frame)
    parsed = read_telemetry(codec.encode(frame))
    assert parsed.malformed.to_dicts() == malformed.to_dicts()
    assert parsed.readings.drop("bucket").to_dicts() == readings.to_dicts()
    assert parsed.readings.schema == reader.READ_SCHEMA
    return parsed


def plainly_fine(payloads: list[bytes]) -> int:
    """Rows that are read from columns alone."""
    data = codec.encode(outbox(payloads))
    layout = codec.layout_of(codec.open_object(data))
    assert layout is not None
    file = codec.open_object(data, ["topic", *reader.texts_of(layout)])
    found = reader.Reader(file.read(), layout)
    found.readings()
    return int(found.fine.sum())


def kept(payloads: list[bytes]) -> int:
    """Payloads that are not in columns."""
    table = codec.open_object(codec.encode(outbox(payloads))).read(columns=["payload"])
    return len(payloads) - int(table["payload"].null_count)


@settings(max_examples=500, deadline=None)
@given(payload_lists)
def test_1_readings_are_those_of_the_payloads_row_for_row(payloads: list[bytes]) -> None:
    read(outbox(payloads))


@settings(max_examples=200, deadline=None)
@given(payload_lists)
def test_days_are_those_of_the_payloads(payloads: list[bytes]) -> None:
    frame = outbox(payloads)
    pairs = frame.select("payload", "received_at").iter_rows()
    expected = Counter(reading_day(*pair) for pair in pairs)
    assert rows_per_day(codec.encode(frame)) == expected
    assert rows_per_day(parquet.encode(frame)) == expected


GOOD = [
    {},
    {"sensors": {}},
    {"sensors": {"soil_moisture": 30, "ph": 7, "ec": 1.25}},
    {"timestamp": None},
    {"timestamp": "absent"},
    {"timestamp": 12},
    {"timestamp": EPOCH_S + 601},
    {"timestamp": EPOCH_S + 0.25},
    {"firmware_version": "ä" * 64, "device_model": "m", "model_version": "x"},
    {"signal_strength": -70, "seq": 2**40, "backlog": True, "ack": True},
    {"backlog": False, "seq": None, "model_version": None},
    {"unknown": {"a": ["b", 1]}},
]


@pytest.mark.parametrize("fields", GOOD)
def test_a_valid_message_is_read_from_columns(fields: dict[str, Any]) -> None:
    payloads = [telemetry(n, **fields) for n in range(3)]
    assert len(read(outbox(payloads)).readings) == 3
    assert plainly_fine(payloads) == 3


BAD = [
    ({"message_id": "no-uuid"}, "wrong_type"),
    ({"message_id": "absent"}, "wrong_type"),
    ({"device_id": "soil-2"}, "device_mismatch"),
    ({"device_id": 7}, "wrong_type"),
    ({"sensors": "absent"}, "wrong_type"),
    ({"sensors": {"temperature": "20.5"}}, "wrong_type"),
    ({"sensors": {"temperature": None}}, "wrong_type"),
    ({"timestamp": "now"}, "wrong_type"),
    ({"firmware_version": "x" * 65}, "wrong_type"),
    ({"device_model": ""}, "wrong_type"),
    ({"model_version": 1}, "wrong_type"),
    ({"seq": -1}, "wrong_type"),
    ({"seq": 1.5}, "wrong_type"),
    ({"seq": "1"}, "wrong_type"),
    ({"seq": 2**63}, "wrong_type"),
    ({"backlog": 1}, "wrong_type"),
    ({"signal_strength": "strong"}, "wrong_type"),
    ({"unknown": "x" * 70_000}, "payload_too_large"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD)
def test_a_message_that_breaks_a_rule_is_malformed(fields: dict[str, Any], reason: str) -> None:
    payloads = [telemetry(1), telemetry(2, **fields), telemetry(3)]
    parsed = read(outbox(payloads))
    assert len(parsed.readings) == 2
    [row] = parsed.malformed.to_dicts()
    assert (row["reason"], row["payload"], row["topic"]) == (
        reason,
        payloads[1],
        "zenthos/esp32-s3/soil-1/telemetry",
    )
    assert row["detail"]


def test_a_template_of_which_a_text_is_too_large_is_read_exactly() -> None:
    payloads = [telemetry(n, unknown="x" * size) for n, size in enumerate((1, 1, 70_000))]
    assert kept(payloads) == 0
    parsed = read(outbox(payloads))
    assert parsed.malformed["reason"].to_list() == ["payload_too_large"]
    assert len(parsed.readings) == 2


def test_2_rows_that_are_doubtful_are_valid_all_the_same() -> None:
    payloads = [
        telemetry(1, sensors={"ph": 1e-7}),
        telemetry(2, sensors={"ph": 0.00001}),
        telemetry(3, sensors={"ph": -0.0}),
        telemetry(4, sensors={"temperature": 0.1234567890123456}),
        telemetry(5, message_id=UUID(int=5).hex),
        telemetry(6, sensors={"a.b": 1.0}),
        telemetry(7, firmware_version='"'),
        telemetry(8, sensors={"temperature": 10**30}),
    ]
    assert len(read(outbox(payloads)).readings) == 8


UUID_TEXT = str(UUID(int=3))


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({"firmware_version": UUID_TEXT}, 1),
        ({"sensors": {"ph": 0.1234567890123456}}, 1),
        ({"timestamp": UUID_TEXT}, 0),
        ({"signal_strength": UUID_TEXT}, 0),
        ({"sensors": {"temperature": UUID_TEXT}}, 0),
        ({"sensors": {"ph": UUID_TEXT}}, 0),
        ({"seq": UUID_TEXT}, 0),
        ({"unknown": UUID_TEXT}, 1),
    ],
)
def test_2_columns_of_another_kind_than_expected(fields: dict[str, Any], valid: int) -> None:
    """Beside others that lack the field, so that the column holds nothing else."""
    payloads = [telemetry(1), telemetry(2, **fields), telemetry(3, **fields)]
    assert len(read(outbox(payloads)).readings) == 1 + 2 * valid


def test_ids_of_devices_that_are_uuids_are_devices() -> None:
    device = str(UUID(int=1 << 100))
    payloads = [telemetry(n, device_id=device) for n in range(3)]
    assert read(outbox(payloads, device)).readings["device_id"].unique().to_list() == [device]
    assert len(read(outbox(payloads, "soil-1")).malformed) == 3


@pytest.mark.parametrize("encode", [codec.encode, parquet.encode])
def test_3_slices_by_bucket_are_together_the_whole(
    encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "ROW_GROUP_ROWS", 7)
    devices = [f"soil-{n}" for n in range(40)]
    frames = [
        outbox([telemetry(n, device_id=d), b"{}", telemetry(n + 1, device_id=d)], d)
        for n, d in enumerate(devices)
    ]
    data = encode(pl.concat(frames))
    whole = read_telemetry(data)
    bounds = sorted({0, *map(bucket_of, devices[:3]), 40_000, 65_536})
    parts = [read_telemetry(data, pair) for pair in pairwise(bounds)]
    assert pl.concat([part.readings for part in parts]).equals(whole.readings)
    assert pl.concat([part.malformed for part in parts]).equals(whole.malformed)
    assert (len(whole.readings), len(whole.malformed)) == (80, 40)


def test_3_row_groups_of_other_devices_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "ROW_GROUP_ROWS", 5)
    frames = [outbox([telemetry(n)] * 5, f"soil-{n}") for n in range(20)]
    file = codec.open_object(codec.encode(pl.concat(frames)))
    bucket = bucket_of("soil-7")
    assert len(shredded.row_groups(file, None)) == 20
    assert len(shredded.row_groups(file, (bucket, bucket + 1))) == 1


def test_an_object_without_rows_or_of_raw_rows_alone_is_read() -> None:
    assert read(outbox([])).readings.is_empty()
    assert len(read(outbox([b"\xff", b"{", b"12"])).malformed) == 3


def test_a_damaged_object_is_named() -> None:
    data = codec.encode(outbox([telemetry(n) for n in range(9)]))
    with (
        pytest.raises(ArchiveError, match=r"zenthos-bronze/telemetry/a\.parquet is damaged"),
        codec.naming("telemetry/a.parquet"),
    ):
        read_telemetry(data[:-30])


def test_silver_gets_its_columns() -> None:
    assert reader.READ_SCHEMA.names()[:-1] == READING_SCHEMA.names()
