"""Which days the messages of an object are about.

1. The day is that of the device's timestamp, or of the receipt where that cannot be: the day that
   readings.read_rows() gives the same message.
2. Of a payload that is no message, the timestamp counts if it can be read.
"""

from collections import Counter
from datetime import UTC, date, datetime
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from zenthos_assets.bronze import codec, columns
from zenthos_assets.bronze.codec import TEMPLATE, Layout
from zenthos_assets.bronze.columns import Decimal
from zenthos_assets.bronze.templates import NUMBER, Value
from zenthos_assets.bronze.transforms import Floats, event_times, reading_day

_TIME: Final = Value("$.timestamp", NUMBER)
_DAY_S: Final = 86_400


def rows_per_day(data: bytes) -> dict[date, int]:
    """How many messages of an object are about each day, in order."""
    file = codec.open_object(data)
    layout = codec.layout_of(file)
    if layout is None:
        return dict(sorted(_exactly(codec.decode(data)).items()))
    times = [_TIME.path] if _TIME.path in layout.columns else []
    table = file.read(columns=["received_at", TEMPLATE, "payload", *times])
    raw = table[TEMPLATE].is_null()
    counts = _exactly(pl.DataFrame(pl.from_arrow(table.filter(raw))))
    counts += _by_columns(table.filter(pa.compute.invert(raw)), layout)
    return dict(sorted(counts.items()))


def _exactly(rows: pl.DataFrame) -> Counter[date]:
    return Counter(reading_day(*row) for row in rows.select("payload", "received_at").iter_rows())


def _by_columns(table: pa.Table, layout: Layout) -> Counter[date]:
    """Rows that have a template: nothing but a number at the path of the timestamp is one."""
    received_us = table["received_at"].cast(pa.int64()).to_numpy()
    timed = np.array([_TIME in template.values for template in layout.templates], dtype=bool)
    seconds = np.full(len(table), np.nan)
    if timed.any():
        chosen = timed[table[TEMPLATE].to_numpy()]
        seconds[chosen] = _seconds(table, layout)[chosen]
    times_us, _ = event_times(seconds, received_us)
    days, sizes = np.unique(times_us // (_DAY_S * 1_000_000), return_counts=True)
    return Counter(
        {
            datetime.fromtimestamp(day * _DAY_S, UTC).date(): size
            for day, size in zip(days.tolist(), sizes.tolist(), strict=True)
        }
    )


def _seconds(table: pa.Table, layout: Layout) -> Floats:
    kind = layout.kind(_TIME.path)
    values = columns.from_arrow(table[_TIME.path], kind)
    if isinstance(kind, Decimal):
        return columns.floats(values, kind.most).to_numpy()
    return values.cast(pl.String).cast(pl.Float64, strict=False).to_numpy()
