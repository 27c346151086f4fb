"""Frames as Parquet objects in the lake.

1. The same rows give the same bytes, however many frames they come in: row groups are cut by
   number of rows, not where a frame ends.
2. Objects are ordered by device bucket where they have that column: a range of buckets is a few
   row groups, and no others are read.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from io import BytesIO
from itertools import pairwise
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import BlobNotFoundError

ROW_GROUP_ROWS: Final = 131_072
ALL_BUCKETS: Final = (0, 65_536)
UUIDS: Final = ("message_id",)
"""Columns of 16 bytes."""

_STEADY: Final = ("time", "received_at", "seq")
"""Columns of which a row differs little from the one before."""

Buckets = tuple[int, int]
"""A range of device buckets: from, and before."""


class ObjectWriter:
    """Parquet with zstd, a row group at a time, while the next rows are being computed (rule 1)."""

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        self._buffer = BytesIO()
        self._rest = schema.to_frame()
        arrow = _to_arrow(self._rest).schema
        self._writer = pq.ParquetWriter(self._buffer, arrow, **_options(arrow.names))
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows of the schema; returns once what was added before has been written."""
        rows = pl.concat([self._rest, frame.select(self._schema.names())])
        whole = len(rows) - len(rows) % ROW_GROUP_ROWS
        self._rest = rows.slice(whole)
        self._wait()
        if whole:
            self._writing = self._thread.submit(self._write_groups, rows.slice(0, whole))

    def finish(self) -> bytes:
        """The object."""
        self._wait()
        self._write_groups(self._rest)
        self._writer.close()
        return self._buffer.getvalue()

    def close(self) -> None:
        """Give the thread back, whether finished or not."""
        self._thread.shutdown()

    def _write_groups(self, rows: pl.DataFrame) -> None:
        for group in rows.iter_slices(ROW_GROUP_ROWS) if len(rows) else ():
            self._writer.write_table(_to_arrow(group.rechunk()))

    def _wait(self) -> None:
        if self._writing:
            self._writing.result()


@contextmanager
def writing(schema: pl.Schema) -> Iterator[ObjectWriter]:
    """A writer whose thread ends with the block."""
    writer = ObjectWriter(schema)
    try:
        yield writer
    finally:
        writer.close()


def _options(names: Sequence[str]) -> dict[str, object]:
    steady = [name for name in names if name in _STEADY]
    return {
        "compression": {name: "none" if name in UUIDS else "zstd" for name in names},
        "use_dictionary": [name for name in names if name not in (*UUIDS, *steady)],
        "column_encoding": dict.fromkeys(steady, "DELTA_BINARY_PACKED"),
    }


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    for name in UUIDS:
        if name in frame.columns:
            place = table.schema.get_field_index(name)
            uuids = table.column(place).combine_chunks()
            table = table.set_column(place, name, _of_16_bytes(uuids))
    return table


def _of_16_bytes(values: pa.LargeBinaryArray) -> pa.FixedSizeBinaryArray:
    return values.cast(pa.binary(16))


def encode(frame: pl.DataFrame) -> bytes:
    """A frame as an object."""
    with writing(frame.schema) as writer:
        writer.write(frame)
        return writer.finish()


def decode(data: bytes) -> pl.DataFrame:
    """The frame of an object."""
    return pl.read_parquet(BytesIO(data))


def read_buckets(
    data: bytes, buckets: Buckets = ALL_BUCKETS, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """The rows of an object whose `bucket` is in a range, in order (rule 2)."""
    rows = pl.scan_parquet(BytesIO(data)).filter(
        pl.col("bucket") >= buckets[0], pl.col("bucket") < buckets[1]
    )
    return (rows if columns is None else rows.select(columns)).collect()


def bucket_slices(rows: int, most: int, buckets: Buckets = ALL_BUCKETS) -> list[Buckets]:
    """`buckets` in ranges, in order, of about `most` rows where all buckets have `rows` of them."""
    first, end = buckets
    share = rows * (end - first) // ALL_BUCKETS[1]
    count = max(1, min(-(-share // most), end - first))
    cuts = [first + number * (end - first) // count for number in range(count + 1)]
    return list(pairwise(cuts))


def by_day(frame: pl.DataFrame, day: pl.Expr) -> dict[date, pl.DataFrame]:
    """The rows of each day that has some, in their order; `day` is an expression."""
    days = frame.select(day.alias("day"))["day"]
    if len(frame) and days.min() == days.max():
        return {days[0]: frame}
    parts = frame.with_columns(_day=days).partition_by(
        "_day", as_dict=True, include_key=False, maintain_order=True
    )
    return {key[0]: part for key, part in parts.items()}


def write_days(
    store: BlobStore,
    place: tuple[str, Callable[[date], str]],
    frame: pl.DataFrame,
    days: Iterable[date],
    *,
    day: pl.Expr,
) -> dict[date, tuple[str, int]]:
    """Replace the objects of `days` in (bucket, key of a day); returns their SHA-256 and rows.

    A day without rows gets an object without rows: it was built, and nothing was there.
    """
    bucket, key_of = place
    parts = by_day(frame, day)
    written = {}
    for wanted in days:
        part = parts.get(wanted, frame.clear())
        data = encode(part)
        store.put(bucket, key_of(wanted), data)
        written[wanted] = hashlib.sha256(data).hexdigest(), len(part)
    return written


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
