"""Building days of telemetry_cleaned: archived objects in, objects of cleaned readings out.

1. What is large is done in slices, each a range of device buckets: de-duplication, placement and
   order never look beyond a device.
2. Slices follow each other in the order of rows, and where they end does not show in the objects:
   the same input gives the same bytes, however it was cut.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import repeat
from typing import Final, TypeVar

import polars as pl

from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.readings import MALFORMED_SCHEMA, READING_SCHEMA, Parsed
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.silver.reference import Reference
from zenthos_assets.silver.tally import Tally, merge, process
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError

SLICE_ROWS: Final = 1_000_000
"""Archived messages handled at once: bounds memory, about 1 GiB, whatever the fleet."""

T = TypeVar("T")

READERS: Final = 2
"""Objects that are read at once: half of that is Python's own and does not use other cores."""


@dataclass(frozen=True)
class Built:
    """Objects as they were written: their SHA-256 by day, and what became of the messages."""

    checksums: dict[date, str]
    tally: Tally


def build_days(
    store: BlobStore,
    days: Sequence[date],
    object_keys: Iterable[str],
    reference: Reference,
    *,
    key_of: Callable[[date], str],
    buckets: parquet.Buckets | None = None,
    slice_rows: int = SLICE_ROWS,
) -> Built:
    """Write the cleaned readings of each day, of the devices in `buckets` or of all.

    Args:
        store: the lake.
        days: in order; one without readings gets an object without rows.
        object_keys: the archived objects that hold readings of those days.
        reference: what holds for those days.
        key_of: where the object of a day goes, in the silver bucket.
        buckets: a shard of the devices.
        slice_rows: archived messages handled at once, about.

    Raises:
        ArchiveError: where an archived object is damaged; it says which.
    """
    with ExitStack() as stack:
        writers = {day: stack.enter_context(parquet.writing(SCHEMA)) for day in days}

        def build_slice(readings: pl.DataFrame, malformed: pl.DataFrame) -> Tally:
            cleaned, tally = process(readings, malformed, reference, days)
            for day, part in parquet.by_day(cleaned, pl.col("time").dt.date()).items():
                writers[day].write(part)
            return tally

        tallies = for_each_slice(
            store, object_keys, build_slice, buckets=buckets, slice_rows=slice_rows
        )
        checksums = {}
        for day, writer in writers.items():
            data = writer.finish()
            store.put(lake.SILVER, key_of(day), data)
            checksums[day] = hashlib.sha256(data).hexdigest()
    return Built(checksums, merge(tallies))


def for_each_slice(
    store: BlobStore,
    object_keys: Iterable[str],
    use: Callable[[pl.DataFrame, pl.DataFrame], T],
    *,
    buckets: parquet.Buckets | None = None,
    slice_rows: int = SLICE_ROWS,
) -> list[T]:
    """What `use` makes of the readings and malformed messages of each slice, in order (rule 1).

    The frames are as `process` takes them; none is held while the next are read.

    Raises:
        ArchiveError: where an object is damaged; it says which.
    """
    archived = {key: store.get(lake.BRONZE, key) for key in object_keys}
    rows = 0
    for key, data in archived.items():
        with _naming(key):
            rows += codec.open_object(data).metadata.num_rows
    slices = parquet.bucket_slices(rows, slice_rows, buckets or parquet.ALL_BUCKETS)
    return [use(*_read_slice(archived, piece)) for piece in slices]


def _read_slice(
    archived: Mapping[str, bytes], buckets: parquet.Buckets
) -> tuple[pl.DataFrame, pl.DataFrame]:
    readings = [pl.Schema({**READING_SCHEMA, "bucket": pl.UInt16()}).to_frame()]
    malformed = [pl.Schema({**MALFORMED_SCHEMA, "object_key": pl.String()}).to_frame()]
    with ThreadPoolExecutor(READERS) as pool:
        parsed = pool.map(_parse, archived, archived.values(), repeat(buckets))
        for key, part in zip(archived, parsed, strict=True):
            readings.append(part.readings.select(readings[0].columns))
            malformed.append(part.malformed.with_columns(object_key=pl.lit(key)))
    return pl.concat(readings), pl.concat(malformed)


def _parse(key: str, data: bytes, buckets: parquet.Buckets) -> Parsed:
    with _naming(key):
        return read_telemetry(data, buckets)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(
            f"{lake.BRONZE}/{key}: {error}; restore the object from a backup and run again"
        ) from error
