"""Building days of telemetry_cleaned: archived objects in, objects of cleaned readings out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from zenthos_assets import parquet
from zenthos_assets.bronze.readings import MALFORMED_SCHEMA, READING_SCHEMA
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.silver.reference import Reference
from zenthos_assets.silver.tally import Tally, process
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError

Buckets = tuple[int, int]
"""A range of device buckets: from, and before."""


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
    buckets: Buckets | None = None,
) -> Built:
    """Write the cleaned readings of each day, of the devices in `buckets` or of all.

    Args:
        store: the lake.
        days: in order; one without readings gets an object without rows.
        object_keys: the archived objects that hold readings of those days.
        reference: what holds for those days.
        key_of: where the object of a day goes, in the silver bucket.
        buckets: a shard of the devices.

    Raises:
        ArchiveError: where an archived object is damaged; it says which.
    """
    readings, malformed = read_objects(store, object_keys, buckets)
    cleaned, tally = process(readings, malformed, reference, days)
    written = parquet.put_days(
        store, (lake.SILVER, key_of), cleaned, days, day=pl.col("time").dt.date()
    )
    return Built({day: checksum for day, (checksum, _) in written.items()}, tally)


def read_objects(
    store: BlobStore, object_keys: Iterable[str], buckets: Buckets | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Readings and malformed messages of archived objects, as `process` takes them.

    Raises:
        ArchiveError: where an object is damaged; it says which.
    """
    readings = [pl.Schema({**READING_SCHEMA, "bucket": pl.UInt16()}).to_frame()]
    malformed = [pl.Schema({**MALFORMED_SCHEMA, "object_key": pl.String()}).to_frame()]
    for key in object_keys:
        try:
            parsed = read_telemetry(store.get(lake.BRONZE, key), buckets)
        except ArchiveError as error:
            raise ArchiveError(
                f"{lake.BRONZE}/{key}: {error}; restore the object from a backup and run again"
            ) from error
        readings.append(parsed.readings.select(readings[0].columns))
        malformed.append(parsed.malformed.with_columns(object_key=pl.lit(key)))
    return pl.concat(readings), pl.concat(malformed)
