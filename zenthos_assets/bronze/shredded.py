"""Readings from bronze telemetry objects without parsing JSON, where the columns allow it.

1. What is read is what readings.read_rows() makes of the payloads, row for row.
2. Rows that reader.Reader finds plainly fine are read from the columns; the others are put together
   again and read the exact way.
3. Row groups without a device of the wanted buckets are not read, and no column that is not needed.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from zenthos_assets.bronze import codec
from zenthos_assets.bronze.codec import BUCKET, TEMPLATE, Layout
from zenthos_assets.bronze.reader import Reader, columns_of, texts_of
from zenthos_assets.bronze.readings import MALFORMED_SCHEMA, Parsed, read_rows
from zenthos_assets.bronze.transforms import Mask, bucket_of

Buckets = tuple[int, int]
"""From, and before."""


@codec.whole()
def read_telemetry(data: bytes, buckets: Buckets | None = None) -> Parsed:
    """What a telemetry object says of the devices in `buckets`, or of all of them.

    Raises:
        ArchiveError: where `data` is no whole object.
    """
    found = read_columns(data, buckets)
    if found is None:
        return _read_plain(data, buckets)
    table, layout = found
    reader = Reader(table, layout)
    readings = reader.readings()
    if reader.fine.all():
        return Parsed(readings, MALFORMED_SCHEMA.to_frame())
    rest = pa.array(~reader.fine)
    shredded = table[TEMPLATE].filter(rest).null_count < np.count_nonzero(~reader.fine)
    names = None if shredded else codec.OWN_COLUMNS
    file = codec.open_object(data)
    whole = _within(file.read_row_groups(row_groups(file, buckets), columns=names), buckets)
    rows = codec.restore(whole.filter(rest), layout if shredded else codec.NOTHING_SHREDDED)
    return _completed(readings, reader.fine, rows)


@codec.whole()
def read_columns(data: bytes, buckets: Buckets | None) -> tuple[pa.Table, Layout] | None:
    """The columns that readings are made of (rule 3); None where nothing is shredded."""
    layout = codec.layout_of(codec.open_object(data))
    if layout is None:
        return None
    file = codec.open_object(data, ["topic", *texts_of(layout)])
    groups = row_groups(file, buckets)
    return _within(file.read_row_groups(groups, columns=columns_of(layout)), buckets), layout


def row_groups(file: pq.ParquetFile, buckets: Buckets | None) -> list[int]:
    """The row groups that may hold devices of those buckets (rule 3)."""
    numbers = range(file.metadata.num_row_groups)
    if buckets is None:
        return list(numbers)
    first, end = buckets
    place = file.schema_arrow.get_field_index(BUCKET)
    ranges = [file.metadata.row_group(number).column(place).statistics for number in numbers]
    return [n for n, held in enumerate(ranges) if held.min < end and held.max >= first]


def _within(table: pa.Table, buckets: Buckets | None) -> pa.Table:
    if buckets is None:
        return table
    first, end = buckets
    found = table[BUCKET].to_numpy()  # in ascending order
    start, stop = np.searchsorted(found, first), np.searchsorted(found, end)
    return table.slice(start, stop - start)


def _completed(readings: pl.DataFrame, fine: Mask, rest: pl.DataFrame) -> Parsed:
    """The readings that are fine and the rows that are not, read exactly, in their order."""
    exact, malformed = _read_exactly(rest, np.flatnonzero(~fine))
    rows = pl.Series("row", np.flatnonzero(fine), dtype=pl.UInt32())
    both = pl.concat([readings.filter(pl.Series(fine)).insert_column(0, rows), exact])
    return Parsed(both.sort("row").drop("row"), malformed)


def _read_exactly(
    rows: pl.DataFrame, numbers: npt.NDArray[np.int64]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Readings with `row` and `bucket`, and malformed rows."""
    received = rows["received_at"].dt.epoch("us")
    columns_of = (numbers.tolist(), rows["topic"], rows["payload"], received)
    readings, malformed = read_rows(zip(*columns_of, strict=True))
    bucket = pl.col("device_id").map_elements(bucket_of, return_dtype=pl.UInt16).alias(BUCKET)
    return readings.with_columns(bucket), malformed.drop("row")


def _read_plain(data: bytes, buckets: Buckets | None) -> Parsed:
    """An object of rows as they are (rule 6 of the codec)."""
    rows = codec.in_order(codec.decode(data))
    if buckets is not None:
        rows = rows.filter(pl.col(BUCKET).is_between(*buckets, closed="left"))
    readings, malformed = _read_exactly(rows, np.arange(len(rows)))
    return Parsed(readings.drop("row"), malformed)
