"""Bronze objects hold the bytes that arrived, whatever they are."""

import json
from datetime import timedelta
from decimal import Decimal as Number
from io import BytesIO
from pathlib import Path
from uuid import UUID

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zenthos_assets.bronze_messages import outbox, payload_lists
from zenthos_assets import parquet
from zenthos_assets.bronze import codec, columns
from zenthos_assets.bronze.columns import Decimal, Text, Uuid, kind_from, narrowest
from zenthos_assets.bronze.templates import (
    MAX_PATTERN,
    NUMBER,
    STRING,
    NoTemplateError,
    Value,
    template_of,
)
from zenthos_assets.bronze.transforms import SCHEMA, bucket_of
from zenthos_core.errors import ArchiveError


def reading(number: int, **sensors: object) -> bytes:
    message = {"message_id": str(UUID(int=number)), "seq": number, "sensors": sensors}
    return json.dumps(message).encode()


def roundtrip(frame: pl.DataFrame) -> bytes:
    """The object of a frame, after a look at whether it gives the frame back."""
    data = codec.encode(frame)
    assert codec.decode(data).equals(codec.in_order(frame).select(SCHEMA.names()))
    return data


def kept_as_they_are(data: bytes) -> int:
    """Rows whose payload is not in columns."""
    payloads = pl.read_parquet(data)["payload"]
    return len(payloads) - payloads.null_count()


@settings(max_examples=300, deadline=None)
@given(payload_lists)
def test_every_byte_comes_back(payloads: list[bytes]) -> None:
    roundtrip(outbox(payloads))


@settings(max_examples=100, deadline=None)
@given(payload_lists)
def test_the_same_rows_give_the_same_bytes(payloads: list[bytes]) -> None:
    assert codec.encode(outbox(payloads)) == codec.encode(outbox(payloads))


def test_what_is_not_in_the_payload_comes_back_too() -> None:
    frame = outbox([reading(n) for n in range(4)]).with_columns(
        qos=pl.Series([0, 1, 2, 1], dtype=pl.Int16()),
        retain=pl.Series([True, False, True, False]),
        ingested_at=pl.col("received_at") - timedelta(microseconds=1),
    )
    roundtrip(frame)


def test_an_object_without_rows_is_an_object() -> None:
    assert codec.decode(codec.encode(SCHEMA.to_frame())).is_empty()


def test_anyone_reads_typed_columns_at_their_paths(tmp_path: Path) -> None:
    payloads = [reading(n, temperature=20 + n / 100, ph=7) for n in range(10)]
    (tmp_path / "hour.parquet").write_bytes(roundtrip(outbox(payloads)))
    frame = pl.read_parquet(tmp_path / "hour.parquet")
    assert frame["$.sensors.temperature"].to_list()[:2] == [Number("20.00"), Number("20.01")]
    assert frame["$.seq"].to_list() == list(range(10))
    assert frame["$.message_id"][9] == UUID(int=9).bytes
    assert frame["bucket"].unique().to_list() == [bucket_of("soil-1")]
    query = 'SELECT max("$.sensors.temperature"), sum("$.seq") FROM read_parquet(?)'
    with duckdb.connect() as connection:
        found = connection.execute(query, [str(tmp_path / "hour.parquet")]).fetchone()
    assert found == (Number("20.09"), 45)


def test_rows_lie_by_bucket_and_topic_in_order_of_arrival() -> None:
    frames = [outbox([reading(n)], f"soil-{n % 3}") for n in range(9)]
    data = roundtrip(pl.concat(frames))
    frame = pl.read_parquet(data)
    assert frame["bucket"].is_sorted()
    for device in frame.partition_by("topic"):
        assert device["$.seq"].is_sorted()


def test_a_field_gained_lost_or_retyped_is_another_template_and_nothing_is_lost() -> None:
    gained = [reading(n, temperature=1.5, ph=7.1) for n in range(5)]
    lost = [reading(n) for n in range(5)]
    retyped = [reading(n, temperature="1.5") for n in range(5)]
    nothing = [reading(n, temperature=None) for n in range(5)]
    data = roundtrip(outbox([*gained, *lost, *retyped, *nothing]))
    assert kept_as_they_are(data) == 0
    layout = codec.layout_of(codec.open_object(data))
    assert layout is not None
    assert len(layout.templates) == 4
    assert layout.kind("$.sensors.temperature") == Text()


def test_more_structures_than_templates_are_kept_as_they_are() -> None:
    payloads = [json.dumps({f"field_{n}": n}).encode() for n in range(codec.MAX_TEMPLATES + 8)]
    assert kept_as_they_are(roundtrip(outbox(payloads))) == 8


def test_rows_that_would_not_be_made_again_are_kept_as_they_are() -> None:
    plain = [b'{"t":%d.5}' % n for n in range(200)]
    odd = [
        b'{"t":-0.0}',
        b'{"t":1.50}',
        b'{"t":1e3}',
        b'{"t":"a\\"b"}',
        b'{"t":0.1234567890123456}',
    ]
    assert kept_as_they_are(roundtrip(outbox([*plain, *odd]))) == len(odd)


def test_an_object_of_the_time_before_is_read() -> None:
    frame = outbox([reading(1), b"\xff", b""])
    assert codec.decode(parquet.encode(frame)).equals(frame)


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -200])
def test_a_truncated_object_is_named_with_what_to_do(tmp_path: Path, cut: int) -> None:
    whole = codec.encode(outbox([reading(n) for n in range(50)]))
    with (
        pytest.raises(
            ArchiveError, match=r"telemetry/2026/11/20/05\.parquet is damaged .*put back a copy"
        ),
        codec.naming("telemetry/2026/11/20/05.parquet"),
    ):
        codec.decode(whole[:cut])


def test_a_page_that_changed_is_an_error_or_other_rows_but_never_unnoticed() -> None:
    whole = codec.encode(outbox([reading(n) for n in range(50)]))
    place = pq.read_metadata(BytesIO(whole)).row_group(0).column(9).data_page_offset
    damaged = whole[: place + 20] + b"\0" * 20 + whole[place + 40 :]
    with pytest.raises(ArchiveError, match="damaged"), codec.naming("x.parquet"):
        codec.decode(damaged)


# Templates


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ('{"a":1,"b":{"c":"x"}}', ["$.a", "$.b.c"]),
        (' [ 1.5 , "x", [true, -2] ] ', ["$[0]", "$[1]", "$[2][1]"]),
        ("{}", []),
        ("[]", []),
        ("null", []),
        ('"text"', ["$"]),
        ("-0.5", ["$"]),
    ],
)
def test_2_each_value_has_a_path(text: str, paths: list[str]) -> None:
    template = template_of(text)
    assert [value.path for value in template.values] == paths
    frame = outbox([text.encode()])
    assert kept_as_they_are(roundtrip(frame)) == 0


def test_1_constants_are_part_of_the_structure() -> None:
    assert template_of('{"a":true}') != template_of('{"a":false}')
    assert template_of('{"a":"true"}').values == (Value("$.a", STRING),)
    assert template_of('{"a":0}').values == (Value("$.a", NUMBER),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a"}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        "[1 2]",
        "[,]",
        "]",
        "1 2",
        "01",
        "1.",
        "1e5",
        '{"a":1E5}',
        '"a\\n"',
        '"a\nb"',
        '{"a.b":1}',
        '{"a[0]":1}',
        '{"":1}',
        '{"a":1,"a":2}',
        '{"a":{},"a":[]}',
        "{1:2}",
        "NaN",
        "'a'",
        "[" * 20 + "]" * 20,
        json.dumps({f"key_number_{n}": n for n in range(100)}),
        " " * (MAX_PATTERN + 1) + "1",
    ],
)
def test_3_no_template_is_made_of(text: str) -> None:
    with pytest.raises(NoTemplateError):
        template_of(text)


# Kinds of columns


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "20", "-3"], Decimal(0, 0)),
        (["1.5", "20.25", "-3.0"], Decimal(1, 2)),
        (["1.50", "20.00"], Decimal(2, 2)),
        (["1", "20.25", "3.5"], Decimal(0, 2)),
        (["0.1", "0.12345678901234567"], Text()),
        (["123456789012345678"], Text()),
        (["-0", "-0"], Text()),
        ([], Text()),
        ([None, None], Text()),
    ],
)
def test_numbers_are_the_narrowest_decimals(texts: list[str | None], kind: object) -> None:
    series = pl.Series("x", texts, dtype=pl.String())
    assert narrowest(series, numeric=True) == kind


def test_uuids_are_bytes_and_other_texts_are_texts() -> None:
    ids = pl.Series([str(UUID(int=n)) for n in range(5)])
    assert narrowest(ids, numeric=False) == Uuid()
    assert narrowest(ids.str.to_uppercase() + "A", numeric=False) == Text()


def test_some_odd_values_do_not_spoil_a_column() -> None:
    texts = pl.Series([f"{n}.5" for n in range(100)] + ["0.123456789012345678"])
    assert narrowest(texts, numeric=True) == Decimal(1, 1)


@given(
    st.integers(0, 15).flatmap(
        lambda most: st.tuples(
            st.integers(0, most),
            st.just(most),
            st.lists(st.one_of(st.none(), st.integers(-(10**15) + 1, 10**15 - 1))),
        )
    )
)
def test_decimals_are_written_and_read_back(case: tuple[int, int, list[int | None]]) -> None:
    fewest, most, mantissas = case
    kind = Decimal(fewest, most)
    values = pl.Series("x", mantissas, dtype=pl.Int64())
    texts = columns.render(values, kind)
    assert columns.typed(texts, kind).to_list() == mantissas
    for text, mantissa in zip(texts, mantissas, strict=True):
        assert (text is None) == (mantissa is None)
        if text is not None and mantissa is not None:
            assert Number(text).scaleb(most) == mantissa
            assert fewest <= len(text.partition(".")[2]) <= most


@given(st.lists(st.one_of(st.none(), st.integers(-(10**15) + 1, 10**15 - 1))), st.integers(0, 15))
def test_decimals_are_the_doubles_that_json_gives(mantissas: list[int | None], most: int) -> None:
    values = pl.Series("x", mantissas, dtype=pl.Int64())
    texts = columns.render(values, Decimal(0, most))
    expected = [None if text is None else float(text) for text in texts]
    assert columns.floats(values, most).to_list() == expected


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind of column"):
        kind_from({"kind": "colour"})
