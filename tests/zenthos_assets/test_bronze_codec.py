"""Bronze objects hold the bytes that arrived, whatever they are."""

import polars as pl
from hypothesis import given, settings

from tests.zenthos_assets.bronze_messages import outbox, payload_lists
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.readings import read_rows
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.transforms import SCHEMA


@settings(max_examples=300, deadline=None)
@given(payload_lists)
def test_every_byte_comes_back(payloads: list[bytes]) -> None:
    frame = outbox(payloads)
    assert codec.decode(codec.encode(frame)).equals(codec.in_order(frame).select(SCHEMA.names()))


@settings(max_examples=500, deadline=None)
@given(payload_lists)
def test_readings_from_columns_are_those_from_json(payloads: list[bytes]) -> None:
    frame = outbox(payloads)
    received = frame["received_at"].dt.epoch("us")
    rows = zip(range(len(frame)), frame["topic"], frame["payload"], received, strict=True)
    readings, malformed = read_rows(rows)
    parsed = read_telemetry(codec.encode(frame))
    assert parsed.malformed.to_dicts() == malformed.drop("row").to_dicts()
    assert parsed.readings.drop("bucket").to_dicts() == readings.drop("row").to_dicts()
    assert parsed.readings["bucket"].dtype == pl.UInt16()
