"""Which readings of silver remain, and in which order: by integers, since texts cost more.

1. Of a device's messages of a day with the same `message_id`, the first received counts; of those
   received at once, the first in the order given. Each day decides for itself, so that it is the
   same whether it is built alone or with others.
2. The order is (bucket, device_id, time, message_id).
3. Hashes only choose what is looked at closely: equal ones decide nothing.
"""

from collections.abc import Iterable
from datetime import date
from typing import Final

import polars as pl

IDENTITY: Final = ("device_id", "message_id")
"""Names a reading for ever."""

ORDER: Final = ("bucket", "device_id", "time", "message_id")
MAX_KEY: Final = 2**63 - 1
_DAY: Final = pl.col("time").dt.date()


def arrange(readings: pl.DataFrame, days: Iterable[date]) -> pl.DataFrame:
    """The readings of those days, each once (rule 1), in order (rule 2)."""
    of_days = readings.select(pl.col("time").dt.date().is_in(sorted(days))).to_series()
    rows = (of_days & first_received(readings)).arg_true()
    return readings[_in_order(readings, rows)]


def first_received(readings: pl.DataFrame) -> pl.Series:
    """For each row whether it remains by rule 1."""
    digests = readings["message_id"].hash()
    alike = repeated(digests)
    if alike.is_empty():
        return pl.repeat(value=True, n=len(readings), eager=True)
    close = digests.is_in(alike.implode())
    remaining = (
        readings.select(*IDENTITY, "received_at", day=_DAY)
        .with_row_index("row")
        .filter(close)
        .sort("received_at", maintain_order=True)
        .unique([*IDENTITY, "day"], keep="first", maintain_order=True)
    )
    return (~close).scatter(remaining["row"], values=True)


def count_repeated(readings: pl.DataFrame) -> int:
    """Rows beyond one for each message of a device and day."""
    digests = readings["message_id"].hash()
    alike = repeated(digests)
    if alike.is_empty():
        return 0
    close = readings.select(*IDENTITY, day=_DAY).filter(digests.is_in(alike.implode()))
    return len(close) - close.n_unique()


def repeated(values: pl.Series) -> pl.Series:
    """The values that come more than once, each once."""
    ordered = values.sort()
    return ordered.filter(ordered == ordered.shift()).unique()


def _in_order(readings: pl.DataFrame, rows: pl.Series) -> pl.Series:
    """Those row numbers by rule 2."""
    keys = _keys(readings)
    if keys is None:
        return readings.with_row_index("row")[rows].sort(ORDER)["row"]
    found = keys.gather(rows)
    by_key = found.arg_sort()
    found = found.gather(by_key)
    rows = rows.gather(by_key)
    tied = ((found == found.shift()) | (found == found.shift(-1))).fill_null(value=False)
    places = tied.arg_true()
    if places.is_empty():
        return rows
    ties = pl.DataFrame({"key": found.gather(places), "row": rows.gather(places)})
    message_ids = readings["message_id"].gather(ties["row"])
    ties = ties.with_columns(message_ids).sort("key", "message_id")
    return rows.scatter(places, ties["row"])


def _keys(readings: pl.DataFrame) -> pl.Series | None:
    """(bucket, device_id, time) as one number a row; None where 63 bits cannot hold them."""
    here = pl.col("device_id")
    devices = (
        readings.select("bucket", "device_id")
        .filter(here.ne_missing(here.shift()))  # they lie together in a bronze object
        .unique()
        .sort("bucket", "device_id")
        .with_row_index("rank")
    )
    ranks = readings.select("device_id").join(
        devices.drop("bucket"), on="device_id", how="left", maintain_order="left"
    )["rank"]
    times = readings["time"].to_physical()
    earliest, latest = times.min() or 0, times.max() or 0
    span = int(latest) - int(earliest) + 1  # type: ignore[arg-type]  # integers, as times are
    if len(devices) * span > MAX_KEY:
        return None
    return ranks.cast(pl.Int64) * span + (times - earliest)
