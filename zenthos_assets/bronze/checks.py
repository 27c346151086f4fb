"""Is the archive what arrived? Reads back what was recorded; proves that nothing is missing."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
import psycopg

from zenthos_assets.bronze import codec
from zenthos_assets.bronze.transforms import usual_rows
from zenthos_assets.executors import ON_ARCHIVE_QUEUE
from zenthos_assets.resources import Platform
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import BlobNotFoundError
from zenthos_core.topics import MessageType

READS_BACK: Final = "archive_reads_back"
BALANCES: Final = "ledger_balances"
FRESH: Final = "archive_is_fresh"
USUAL: Final = "rows_as_usual"

ARCHIVED_WITHIN: Final = timedelta(hours=1)
COMPARED: Final = timedelta(hours=25)
REGULAR: Final = (MessageType.TELEMETRY, MessageType.INFERENCE)
"""Devices send these by the clock; the others as things happen."""

_WAITING: Final = """
SELECT min(received_at), count(*) FROM raw_messages WHERE message_type = %s AND received_at < %s"""
_HOURLY: Final = """
SELECT hour, sum(row_count)::bigint FROM (
  SELECT hour, row_count FROM bronze_objects
  WHERE table_name = %(table)s AND hour >= %(start)s AND hour < %(end)s
  UNION ALL
  SELECT date_trunc('hour', received_at, 'UTC'), count(*) FROM raw_messages
  WHERE message_type = %(table)s AND received_at >= %(start)s AND received_at < %(end)s GROUP BY 1
) AS counts GROUP BY hour"""

_ACCOUNT: Final = """
SELECT (SELECT coalesce(sum(received - quarantined), 0) FROM ledger)::bigint,
       (SELECT coalesce(sum(row_count), 0) FROM bronze_objects)::bigint,
       (SELECT count(*) FROM raw_messages),
       (SELECT coalesce(sum(quarantined), 0) FROM ledger)::bigint,
       (SELECT coalesce(sum(occurrences), 0) FROM quarantine)::bigint"""


def bronze_key(kind: MessageType) -> dg.AssetKey:
    """The asset of a message type."""
    return dg.AssetKey(["bronze", kind.value])


BRONZE_CHECKS: Final = [
    dg.AssetCheckSpec(
        BALANCES,
        asset=bronze_key(MessageType.TELEMETRY),
        blocking=True,
        description=(
            "What the ledger has received, of all types, against archive, outbox and quarantine. "
            "A message that is missing or doubled is an error, an emptied quarantine a warning."
        ),
    ),
    *(
        dg.AssetCheckSpec(
            FRESH,
            asset=bronze_key(kind),
            description="No hour that ended more than an hour ago waits to be archived.",
        )
        for kind in MessageType
    ),
    *(
        dg.AssetCheckSpec(
            USUAL,
            asset=bronze_key(kind),
            description="The last full hour holds about as many messages as those of a day before.",
        )
        for kind in REGULAR
    ),
]


def broken_objects(
    connection: psycopg.Connection, store: BlobStore, table: str, hours: Iterable[datetime]
) -> list[str]:
    """Keys of recorded objects of those hours that are missing or changed."""
    recorded = connection.execute(
        "SELECT object_key, row_count, sha256 FROM bronze_objects"
        " WHERE table_name = %s AND hour = ANY(%s) ORDER BY object_key",
        [table, list(hours)],
    ).fetchall()
    return [key for key, rows, digest in recorded if not _intact(store, key, rows, digest)]


def _intact(store: BlobStore, key: str, row_count: int, digest: str) -> bool:
    try:
        data = store.get(lake.BRONZE, key)
    except BlobNotFoundError:
        return False
    if hashlib.sha256(data).hexdigest() != digest:
        return False
    return bool(codec.open_object(data).metadata.num_rows == row_count)


def reads_back(broken: list[str]) -> dg.AssetCheckResult:
    """Blocking: what a run has archived has the recorded rows and SHA-256."""
    return dg.AssetCheckResult(
        check_name=READS_BACK, passed=not broken, metadata={"broken_objects": broken}
    )


def _balance(connection: psycopg.Connection) -> dg.AssetCheckResult:
    """Every message that was counted lies in the archive, the outbox or the quarantine.

    One statement sees whole transactions of ingest, so the sums agree while it runs. The ledger
    does not know message types: this is one account for all of them.
    """
    row = connection.execute(_ACCOUNT).fetchone()
    accepted, archived, waiting, quarantined, kept = row or (0, 0, 0, 0, 0)
    lost_or_doubled = accepted != archived + waiting
    return dg.AssetCheckResult(
        asset_key=bronze_key(MessageType.TELEMETRY),
        check_name=BALANCES,
        passed=not lost_or_doubled and quarantined == kept,
        # an operator may have emptied the quarantine; the rest nobody may touch
        severity=dg.AssetCheckSeverity.ERROR if lost_or_doubled else dg.AssetCheckSeverity.WARN,
        metadata={
            "stored_duplicate_or_rate_limited": accepted,
            "archived": archived,
            "waiting_in_outbox": waiting,
            "counted_as_quarantined": quarantined,
            "in_quarantine": kept,
        },
    )


def _freshness(
    connection: psycopg.Connection, kind: MessageType, now: datetime
) -> dg.AssetCheckResult:
    """No hour that ended an hour ago or earlier still waits."""
    due = now.replace(minute=0, second=0, microsecond=0) - ARCHIVED_WITHIN
    oldest, count = connection.execute(_WAITING, [kind.value, due]).fetchone() or (None, 0)
    return dg.AssetCheckResult(
        asset_key=bronze_key(kind),
        check_name=FRESH,
        passed=not count,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"overdue_messages": count, "oldest": str(oldest) if count else "none"},
    )


def _usual(connection: psycopg.Connection, kind: MessageType, now: datetime) -> dg.AssetCheckResult:
    """The last full hour holds about as many messages as those before it."""
    end = now.replace(minute=0, second=0, microsecond=0)
    start = end - COMPARED
    scope = {"table": kind.value, "start": start, "end": end}
    rows: dict[datetime, int] = dict(connection.execute(_HOURLY, scope).fetchall())
    hours = [start + n * timedelta(hours=1) for n in range(COMPARED // timedelta(hours=1))]
    *before, last = [rows.get(hour, 0) for hour in hours]
    usual = usual_rows(before)
    return dg.AssetCheckResult(
        asset_key=bronze_key(kind),
        check_name=USUAL,
        passed=usual is None or usual[0] <= last <= usual[1],
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "messages_in_last_hour": last,
            "usual": "too few hours to tell" if usual is None else f"{usual[0]} to {usual[1]}",
        },
    )


@dg.multi_asset_check(
    name="bronze_checks", specs=BRONZE_CHECKS, can_subset=True, op_tags=ON_ARCHIVE_QUEUE
)
def bronze_checks(
    context: dg.AssetCheckExecutionContext, platform: Platform
) -> Iterator[dg.AssetCheckResult]:
    """Account, freshness and counts, as of now, whatever hours a run has archived."""
    now = datetime.now(UTC)
    with platform.ops() as connection:
        for key in sorted(context.selected_asset_check_keys, key=str):
            kind = MessageType(key.asset_key.path[-1])
            if key.name == BALANCES:
                yield _balance(connection)
            elif key.name == FRESH:
                yield _freshness(connection, kind, now)
            else:
                yield _usual(connection, kind, now)
