"""What bronze computes from rows of the outbox; values in, values out."""

import hashlib
from binascii import crc32
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Final

import msgspec
import polars as pl

from zenthos_core.messages import event_time

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


def rows_per_day(frame: pl.DataFrame) -> dict[date, int]:
    """How many messages are about each day."""
    pairs: Iterable[tuple[bytes, datetime]] = frame.select("payload", "received_at").iter_rows()
    return dict(sorted(Counter(reading_day(*pair) for pair in pairs).items()))


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 of topics, payloads and times of receipt, in order, whatever the file format."""
    digest = hashlib.sha256()
    times = frame["received_at"].dt.epoch("us")
    for topic, payload, received_us in zip(frame["topic"], frame["payload"], times, strict=True):
        name = topic.encode()
        digest.update(b"%d %d %d\n" % (len(name), len(payload), received_us))
        digest.update(name)
        digest.update(payload)
    return digest.hexdigest()


def device_of(topic: str) -> str:
    """The device that a topic names; of one outside the grammar, the whole of it."""
    parts = topic.split("/")
    return parts[2] if len(parts) == 4 else topic


def bucket_of(device_id: str) -> int:
    """0 to 65535; shards of devices are ranges of it."""
    return crc32(device_id.encode()) & 0xFFFF
