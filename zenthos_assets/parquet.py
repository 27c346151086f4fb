"""Frames as Parquet objects in the lake: the same rows give the same bytes."""

from collections.abc import Iterable
from datetime import date, timedelta
from io import BytesIO

import polars as pl

from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import BlobNotFoundError


def encode(frame: pl.DataFrame) -> bytes:
    """Parquet with zstd."""
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    return buffer.getvalue()


def decode(data: bytes) -> pl.DataFrame:
    """The frame of an object."""
    return pl.read_parquet(BytesIO(data))


def write_days(
    store: BlobStore,
    place: tuple[str, str],
    frame: pl.DataFrame,
    days: Iterable[date],
    *,
    day: pl.Expr,
) -> dict[date, int]:
    """Replace the objects of `days` in (bucket, table) with the rows of each; returns their counts.

    A day without rows gets an object without rows: it was built, and nothing was there.
    """
    bucket, table = place
    parts = frame.with_columns(_day=day).partition_by("_day", as_dict=True, include_key=False)
    counts = {}
    for wanted in days:
        part = parts.get((wanted,), frame.clear())
        store.put(bucket, lake.day_key(table, wanted), encode(part))
        counts[wanted] = len(part)
    return counts


def read_days(
    store: BlobStore, bucket: str, table: str, days: Iterable[date], schema: pl.Schema
) -> pl.DataFrame:
    """The rows of all those days that were built."""
    frames = [schema.to_frame()]
    for day in days:
        try:
            frames.append(decode(store.get(bucket, lake.day_key(table, day))))
        except BlobNotFoundError:
            continue  # not built: the same as no rows to what reads a window
    return pl.concat(frames)


def built_days(store: BlobStore, bucket: str, table: str) -> list[date]:
    """All days that have an object."""
    keys = store.keys(bucket, f"{table}/")
    return [
        date.fromisoformat(k[len(table) + 1 : -len(".parquet")].replace("/", "-")) for k in keys
    ]


def day_range(first: date, last: date) -> list[date]:
    """All days from `first` to `last`."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def chunks(days: list[date], size: int) -> Iterable[list[date]]:
    """The days in groups of at most `size`."""
    return (days[start : start + size] for start in range(0, len(days), size))
