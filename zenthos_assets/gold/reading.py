"""Reading upstream objects for gold: bounded in memory, and plain about damage."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from io import BytesIO
from typing import Final

import polars as pl

from zenthos_assets import parquet
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError, BlobNotFoundError

SLICE_ROWS: Final = 1_000_000
"""Readings at once, about: bounds memory whatever the fleet."""

_ASSETS: Final = {lake.SILVER: "silver", lake.GOLD: "gold"}


def read_window(
    store: BlobStore, place: tuple[str, str], days: Sequence[date], schema: pl.Schema
) -> pl.DataFrame:
    """Those columns of all these days of (bucket, table) that were built; others have no rows.

    Raises:
        ArchiveError: naming an object that cannot be read, and how to build it again.
    """
    frames = [schema.to_frame()]
    for day in days:
        try:
            data = store.get(place[0], lake.day_key(place[1], day))
        except BlobNotFoundError:
            continue
        frames.append(_read(data, place, day, schema))
    return pl.concat(frames)


def read_slices(
    store: BlobStore,
    place: tuple[str, str],
    days: Sequence[date],
    schema: pl.Schema,
    rows: Mapping[date, int],
) -> Iterator[pl.DataFrame]:
    """As `read_window`, in ranges of device buckets where there are more than SLICE_ROWS."""
    total = sum(rows.get(day, 0) for day in days)
    if total <= SLICE_ROWS:
        yield read_window(store, place, days, schema)
        return
    for day in days:
        data = store.get(place[0], lake.day_key(place[1], day))
        for buckets in parquet.bucket_slices(rows.get(day, 0), SLICE_ROWS):
            yield _read(data, place, day, schema, buckets)


def _read(
    data: bytes,
    place: tuple[str, str],
    day: date,
    schema: pl.Schema,
    buckets: parquet.Buckets | None = None,
) -> pl.DataFrame:
    try:
        if buckets:
            return parquet.read_buckets(data, buckets, schema.names())
        return pl.read_parquet(BytesIO(data), columns=schema.names())
    except (pl.exceptions.PolarsError, OSError) as error:
        bucket, table = place
        raise ArchiveError(
            f"{bucket}/{lake.day_key(table, day)} cannot be read ({error}): build it again, "
            f"{_ASSETS[bucket]}/{table} of {day} with force: true"
        ) from None
