"""Is the archive what arrived? Reads back what was recorded; proves that nothing is missing."""

import hashlib
from collections.abc import Iterable
from datetime import datetime

import dagster as dg
import psycopg

from zenthos_assets.bronze import codec
from zenthos_assets.executors import ON_ARCHIVE_QUEUE
from zenthos_assets.resources import Platform
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import BlobNotFoundError
from zenthos_core.topics import MessageType

READS_BACK = "archive_reads_back"

_ACCOUNT = """
SELECT (SELECT coalesce(sum(received - quarantined), 0) FROM ledger)::bigint,
       (SELECT coalesce(sum(row_count), 0) FROM bronze_objects)::bigint,
       (SELECT count(*) FROM raw_messages),
       (SELECT coalesce(sum(quarantined), 0) FROM ledger)::bigint,
       (SELECT coalesce(sum(occurrences), 0) FROM quarantine)::bigint"""


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


@dg.asset_check(
    asset=dg.AssetKey(["bronze", MessageType.TELEMETRY.value]),
    description="What the ledger has received, against archive, outbox and quarantine.",
    op_tags=ON_ARCHIVE_QUEUE,
)
def ledger_balances(platform: Platform) -> dg.AssetCheckResult:
    """Every message that was counted lies in the archive, the outbox or the quarantine."""
    with platform.ops() as connection:
        row = connection.execute(_ACCOUNT).fetchone()
    accepted, archived, waiting, quarantined, kept = row or (0, 0, 0, 0, 0)
    return dg.AssetCheckResult(
        passed=accepted == archived + waiting and quarantined == kept,
        metadata={
            "stored_duplicate_or_rate_limited": accepted,
            "archived": archived,
            "waiting_in_outbox": waiting,
            "counted_as_quarantined": quarantined,
            "in_quarantine": kept,
        },
    )
