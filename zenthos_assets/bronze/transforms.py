"""What bronze computes from rows of the outbox; values in, values out."""

import hashlib
import math
from binascii import crc32
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from statistics import median
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from zenthos_core.messages import EARLIEST_EPOCH_S, MAX_AHEAD_S, event_time

SCHEMA: Final = pl.Schema(
    {
        "topic": pl.String(),
        "payload": pl.Binary(),
        "received_at": pl.Datetime("us", "UTC"),
        "ingested_at": pl.Datetime("us", "UTC"),
        "qos": pl.Int16(),
        "retain": pl.Boolean(),
        "redelivered": pl.Boolean(),
    }
)
"""Exactly what arrived, and when."""

USUAL_HOURS: Final = 6
USUAL_FACTOR: Final = 3

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Row = tuple[str, bytes, datetime, datetime, int, bool, bool]


class _Timestamp(msgspec.Struct):
    timestamp: int | float | None = None


_decode_timestamp = msgspec.json.Decoder(_Timestamp).decode


def to_frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Outbox rows as a frame of SCHEMA, in their order."""
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def reading_day(payload: bytes, received_at: datetime) -> date:
    """The UTC day a message is about; that of its receipt where the payload has no usable time."""
    received_s = received_at.timestamp()
    try:
        seconds, _ = event_time(_decode_timestamp(payload).timestamp, received_s)
    except (msgspec.DecodeError, UnicodeDecodeError):
        seconds = received_s
    return datetime.fromtimestamp(seconds, UTC).date()


def rows_per_minute(frame: pl.DataFrame) -> dict[datetime, int]:
    """How many messages were received in each minute in which any was, in order."""
    minutes = frame.group_by(pl.col("received_at").dt.truncate("1m")).len().sort("received_at")
    return dict(minutes.iter_rows())


def counts_by(minutes: Iterable[Mapping[datetime, int]], seconds: int) -> dict[datetime, int]:
    """Counts by minute, summed over spans of so many seconds, those without any included."""
    sums: Counter[int] = Counter()
    for counts in minutes:
        for moment, count in counts.items():
            sums[int(moment.timestamp()) // seconds] += count
    spans = range(min(sums), max(sums) + 1) if sums else ()
    return {datetime.fromtimestamp(span * seconds, UTC): sums[span] for span in spans}


def event_times(seconds: Floats, received_us: Integers) -> tuple[Integers, Mask]:
    """event_time() of many messages: µs, and whether the clock is suspect; NaN is no timestamp."""
    latest = received_us / 1e6 + MAX_AHEAD_S
    suspect: Mask = ~((seconds >= EARLIEST_EPOCH_S) & (seconds <= latest))
    device_us = np.rint(np.where(suspect, 0.0, seconds) * 1e6).astype(np.int64)
    return np.where(suspect, received_us, device_us), suspect


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of all columns, in order, whatever the file format."""
    digest = hashlib.sha256(b"%d\n" % len(frame))
    for name in ("topic", "payload"):
        sizes, content = _bytes_of(frame[name])
        digest.update(sizes)
        digest.update(content)
    for name, dtype in SCHEMA.items():
        if name not in ("topic", "payload"):
            physical = frame[name].to_physical() if dtype.is_temporal() else frame[name]
            digest.update(physical.to_numpy().tobytes())
    return digest.hexdigest()


def _bytes_of(texts: pl.Series) -> tuple[bytes, memoryview]:
    """The lengths of texts, and the texts one after the other."""
    array = texts.cast(pl.Binary).rechunk().to_arrow().cast(pa.large_binary())
    _, offsets, content = array.buffers()
    ends = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    joined = memoryview(content or b"")[ends[0] : ends[-1]]
    return np.diff(ends).tobytes(), joined


def device_of(topic: str) -> str:
    """The device that a topic names; of one outside the grammar, the whole of it."""
    parts = topic.split("/")
    return parts[2] if len(parts) == 4 else topic


def bucket_of(device_id: str) -> int:
    """0 to 65535; shards of devices are ranges of it."""
    return crc32(device_id.encode()) & 0xFFFF


def usual_rows(hours: Sequence[int]) -> tuple[int, int] | None:
    """Between which counts an hour is as usual: a third and three times the median of `hours`.

    Hours without messages do not count; None where fewer than USUAL_HOURS are left.
    """
    counts = [count for count in hours if count]
    if len(counts) < USUAL_HOURS:
        return None
    middle = median(counts)
    return math.floor(middle / USUAL_FACTOR), math.ceil(middle * USUAL_FACTOR)
