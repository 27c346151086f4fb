"""Objects depend on their rows alone, and a range of buckets is read without the others."""

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from itertools import pairwise

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenthos_assets import parquet

ROWS = parquet.ROW_GROUP_ROWS * 2 + 77
START = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """More rows than two row groups hold, by bucket, with a column of each kind."""
    number = pl.int_range(ROWS)
    return pl.select(
        bucket=(number // 50).cast(pl.UInt16),
        message_id=pl.Series([sha256(b"%d" % n).digest()[:16] for n in range(ROWS)]),
        time=pl.lit(START) + pl.duration(seconds=number),
        seq=number,
        text=pl.when(number % 3 == 0).then(pl.format("t{}", number % 7)),
        value=pl.when(number % 5 > 0).then(number / 8),
    )


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, ROWS), max_size=4))
def test_the_same_rows_give_the_same_bytes_in_any_frames(
    frame: pl.DataFrame, cuts: list[int]
) -> None:
    with parquet.writing(frame.schema) as writer:
        for start, end in pairwise([0, *sorted(cuts), ROWS]):
            writer.write(frame.slice(start, end - start))
        data = writer.finish()
    assert data == parquet.encode(frame)
    assert parquet.decode(data).equals(frame)
    assert pq.read_metadata(BytesIO(data)).num_row_groups == 3


def test_an_object_without_rows_has_its_columns(frame: pl.DataFrame) -> None:
    assert parquet.decode(parquet.encode(frame.clear())).schema == frame.schema


@pytest.mark.parametrize("buckets", [(0, 65_536), (0, 10), (2_620, 2_622), (5_000, 5_001), (9, 9)])
def test_a_range_of_buckets_is_read(frame: pl.DataFrame, buckets: tuple[int, int]) -> None:
    found = parquet.read_buckets(parquet.encode(frame), buckets, ["seq", "bucket"])
    wanted = frame.filter(pl.col("bucket").is_between(*buckets, closed="left"))
    assert found.equals(wanted.select("seq", "bucket"))


@settings(deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 10**7), st.integers(0, 65_535), st.integers(1, 99))
def test_slices_follow_each_other_and_cover_the_range(
    rows: int, most: int, first: int, width: int
) -> None:
    whole = (first, min(65_536, first + width))
    slices = parquet.bucket_slices(rows, most, whole)
    assert (slices[0][0], slices[-1][1]) == whole
    assert all(start < end for start, end in slices)
    assert all(a[1] == b[0] for a, b in pairwise(slices))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=20))
def test_rows_of_days_keep_their_order(days: list[int]) -> None:
    first = date(2026, 1, 1)
    frame = pl.DataFrame(
        {"day": [first + timedelta(n) for n in days], "row": range(len(days))},
        schema={"day": pl.Date, "row": pl.Int64},
    )
    parts = parquet.by_day(frame, pl.col("day"))
    assert {day: part["row"].to_list() for day, part in parts.items()} == {
        first + timedelta(n): [row for row, day in enumerate(days) if day == n] for n in set(days)
    }
