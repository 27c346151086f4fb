"""Building days of telemetry_cleaned: archived objects in, objects of cleaned readings out.

1. What is large is done in slices, each a range of device buckets: de-duplication, placement and
   order never look beyond a device.
2. Slices follow each other in the order of rows, and where they end does not show in the objects:
   the same input gives the same bytes, however it was cut.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final, TypeVar

import polars as pl

from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.together import read_together
from zenthos_assets.silver.reference import Reference
from zenthos_assets.silver.tally import Tally, merge, process
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_core import lake
from zenthos_core.blobs import BlobStore

SLICE_ROWS: Final = 750_000
"""Archived messages handled at once, some 0.6 GiB, while the next are read. Smaller slices would
read more of what they do not need."""

S = TypeVar("S")
T = TypeVar("T")


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

    The frames are as `process` takes them; the next ones are read meanwhile.

    Raises:
        ArchiveError: where an object is damaged; it says which.
    """
    archived = {key: store.get(lake.BRONZE, key) for key in object_keys}
    rows = 0
    for key, data in archived.items():
        with codec.naming(key):
            rows += codec.open_object(data).metadata.num_rows
    slices = parquet.bucket_slices(rows, slice_rows, buckets or parquet.ALL_BUCKETS)
    read = partial(read_together, archived)
    return [use(*frames) for frames in _one_ahead(slices, read)]


def _one_ahead(items: Sequence[S], work: Callable[[S], T]) -> Iterator[T]:
    """The work on each item, in order; that on the next is done meanwhile."""
    with ThreadPoolExecutor(1) as worker:
        coming: Future[T] | None = None
        for item in items:
            done, coming = coming, worker.submit(work, item)
            if done is not None:
                yield done.result()
        if coming is not None:
            yield coming.result()
