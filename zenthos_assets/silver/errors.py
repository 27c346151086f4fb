"""Messages that silver cannot use, kept in etl_errors so that none is lost.

1. Malformed messages and those of unregistered devices are kept, with their bytes and a reason.
2. Equal messages of a day take one row, which counts them. A later build of the day adds nothing.
3. An open row that a later build does not find again is resolved: the message is in silver now.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import polars as pl
import psycopg

from zenthos_assets.bronze.transforms import bucket_of, device_of, reading_day
from zenthos_assets.parquet import ALL_BUCKETS, Buckets
from zenthos_assets.silver.tally import BROKEN_SCHEMA

UNREGISTERED: Final = "unregistered_device"
_DETAIL: Final = "no device of that id is registered: register it and build the day again"

_RECORD: Final = """
INSERT INTO etl_errors (asset, day, topic, device_id, payload, received_at, reason, detail,
  object_key, run_id, occurrences)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (asset, day, reason, topic, received_at, payload_sha256) DO UPDATE SET
  run_id = excluded.run_id, occurrences = excluded.occurrences,
  state = CASE etl_errors.state WHEN 'resolved' THEN 'open' ELSE etl_errors.state END"""
_GONE: Final = """
SELECT id, topic FROM etl_errors
WHERE asset = %s AND day = ANY(%s) AND state = 'open' AND run_id <> %s"""
_KEPT: Final = """
SELECT day, topic, occurrences FROM etl_errors
WHERE asset = %s AND day = ANY(%s) AND run_id = %s"""
_OPEN: Final = """
SELECT reason, device_id, sum(occurrences)::bigint FROM etl_errors
WHERE asset = %s AND day = ANY(%s) AND state = 'open' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""
OPEN_SCHEMA: Final = pl.Schema(
    {"reason": pl.String(), "device_id": pl.String(), "messages": pl.Int64()}
)
_STRANGERS: Final = """
SELECT DISTINCT day, device_id FROM etl_errors
WHERE asset = %s AND day = ANY(%s) AND reason = %s AND device_id IS NOT NULL"""


def strangers_messages(
    bronze: pl.DataFrame, strangers: Iterable[str], malformed: pl.DataFrame, days: Sequence[date]
) -> pl.DataFrame:
    """The messages of unregistered devices about those days: a frame of BROKEN_SCHEMA.

    Args:
        bronze: archived messages with their `object_key`.
        strangers: the devices.
        malformed: of BROKEN_SCHEMA: messages that have another reason already.
        days: the days wanted.
    """
    unknown = set(strangers)
    topics = [topic for topic in bronze["topic"].unique() if device_of(topic) in unknown]
    message = ["topic", "payload", "received_at", "object_key"]
    theirs = (
        bronze.filter(pl.col("topic").is_in(topics))
        .select(message)
        .join(malformed, on=message, how="anti", maintain_order="left")
    )
    about = [reading_day(*pair) for pair in theirs.select("payload", "received_at").iter_rows()]
    return (
        theirs.with_columns(
            pl.Series("day", about, pl.Date), reason=pl.lit(UNREGISTERED), detail=pl.lit(_DETAIL)
        )
        .filter(pl.col("day").is_in(list(days)))
        .select(BROKEN_SCHEMA.names())
    )


def record(
    connection: psycopg.Connection,
    asset: str,
    broken: pl.DataFrame,
    days: Sequence[date],
    *,
    run_id: str,
    buckets: Buckets = ALL_BUCKETS,
) -> Counter[date]:
    """Keep the messages of those days and devices (rules 1 to 3) and commit.

    Returns how many messages the table now holds of each day by this run.
    """
    content = ["day", "topic", "payload", "received_at", "reason"]
    counted = broken.group_by(content, maintain_order=True).agg(
        pl.col("detail", "object_key").first(), occurrences=pl.len()
    )
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            _RECORD,
            [
                [
                    *(asset, row["day"], row["topic"], device_of(row["topic"]), row["payload"]),
                    *(row["received_at"], row["reason"], row["detail"], row["object_key"]),
                    *(run_id, row["occurrences"]),
                ]
                for row in counted.iter_rows(named=True)
            ],
        )
        gone = cursor.execute(_GONE, [asset, list(days), run_id]).fetchall()
        found = [id_ for id_, topic in gone if _within(topic, buckets)]
        cursor.execute("UPDATE etl_errors SET state = 'resolved' WHERE id = ANY(%s)", [found])
        kept = Counter[date]()
        for day, topic, occurrences in cursor.execute(_KEPT, [asset, list(days), run_id]):
            kept[day] += occurrences if _within(topic, buckets) else 0
    return kept


def _within(topic: str, buckets: Buckets) -> bool:
    return buckets[0] <= bucket_of(device_of(topic)) < buckets[1]


def refused_devices(
    connection: psycopg.Connection, asset: str, days: Sequence[date]
) -> dict[date, set[str]]:
    """Devices whose messages of a day were refused as strangers' at any time."""
    refused: dict[date, set[str]] = {}
    found = connection.execute(_STRANGERS, [asset, list(days), UNREGISTERED]).fetchall()
    for day, device_id in found:
        refused.setdefault(day, set()).add(device_id)
    return refused


def open_errors(connection: psycopg.Connection, asset: str, days: Sequence[date]) -> pl.DataFrame:
    """What lies open of those days: a frame of OPEN_SCHEMA, the most frequent first."""
    rows = connection.execute(_OPEN, [asset, list(days)]).fetchall()
    return pl.DataFrame(rows, schema=OPEN_SCHEMA, orient="row")
