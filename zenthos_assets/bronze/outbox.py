"""Draining the outbox: one REPEATABLE READ transaction a part, so that nothing is lost or doubled.

0. Runs of one hour wait for each other; the second finds what the first has left.
1. Copy out the hour's oldest rows, as of the transaction's snapshot.
2. Record the hour's next part and the days its readings are about. The part's number is unique, so
   whoever passes by rule 0 fails here, before it can overwrite what another wrote.
3. Write the object; read it back and compare rows and content.
4. Set aside what some forwarder of ingest has not yet passed. A cursor that moved since the
   snapshot makes this too much, never too little; the forwarder deletes what it has passed.
5. Delete what was copied: the same snapshot, so no row that came in between.
6. Commit. A crash before it leaves the rows and an object that nothing names; the next run
   overwrites that object. A crash after it leaves a recorded object and no rows.

See docs/adr on why rows are deleted before partitions are dropped.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from zenthos_assets.bronze import codec
from zenthos_assets.bronze.days import rows_per_day
from zenthos_assets.bronze.transforms import SCHEMA, content_hash, rows_per_minute, to_frame
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError

PART_ROWS: Final = 500_000
"""Most rows of one object: some 300 MB of payloads in memory."""

LOCK_CLASS: Final = 0x627A6E  # "bzn": the first half of the advisory locks' keys
HOUR: Final = timedelta(hours=1)
DROP_LOCK_TIMEOUT: Final = "200ms"

_SELECT: Final = """
SELECT id, topic, payload, received_at, ingested_at, qos, retain, redelivered FROM raw_messages
WHERE message_type = %(table)s AND received_at >= %(hour)s AND received_at < %(end)s
ORDER BY id LIMIT %(limit)s"""
_LOCK: Final = "LOCK TABLE forward_backlog IN ROW EXCLUSIVE MODE"
_CURSOR: Final = "SELECT xid::text, id FROM forwarders ORDER BY forwarders.xid, id LIMIT 1"
_SET_ASIDE: Final = """
INSERT INTO forward_backlog (xid, id, message_type, topic, payload, received_at)
SELECT xid, id, message_type, topic, payload, received_at FROM raw_messages
WHERE message_type = %(table)s AND received_at >= %(hour)s AND received_at < %(end)s
AND id <= %(last_id)s AND (xid, id) > (%(cursor_xid)s::xid8, %(cursor_id)s)"""
_DELETE: Final = """
DELETE FROM raw_messages WHERE message_type = %(table)s
AND received_at >= %(hour)s AND received_at < %(end)s AND id <= %(last_id)s"""
_PARTITIONS: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'raw_messages'::regclass AND c.relname ~ '^raw_messages_[0-9]{10}$'
ORDER BY 1"""


@dataclass(frozen=True)
class Part:
    """An archived object."""

    object_key: str
    row_count: int
    size_bytes: int
    payload_bytes: int
    sha256: str
    days: dict[date, int]
    """Messages by the day they are about."""
    minutes: dict[datetime, int]
    """Messages by minute of receipt."""


def archive_hour(
    connection: psycopg.Connection,
    store: BlobStore,
    table: str,
    hour: datetime,
    *,
    run_id: str,
    limit: int = PART_ROWS,
) -> Iterator[Part]:
    """Archive what an hour holds, part by part, until one is not full.

    What arrives meanwhile waits for the next run: the running hour may never be empty.
    """
    with _alone(connection, f"bronze/{table} {hour:%Y-%m-%dT%H}"):
        while part := archive_part(connection, store, table, hour, run_id=run_id, limit=limit):
            yield part
            if part.row_count < limit:
                return


@contextmanager
def _alone(connection: psycopg.Connection, name: str) -> Iterator[None]:
    """Rule 0. The lock is the session's: it is older than the snapshots taken under it."""
    connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [LOCK_CLASS, name])
    connection.commit()
    try:
        yield
    finally:
        if not connection.closed:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", [LOCK_CLASS, name])
            connection.commit()


def archive_part(
    connection: psycopg.Connection,
    store: BlobStore,
    table: str,
    hour: datetime,
    *,
    run_id: str,
    limit: int = PART_ROWS,
) -> Part | None:
    """Archive up to `limit` rows of an hour and commit; None where the outbox has none.

    Raises:
        ArchiveError: where what was read back is not what was written; nothing is deleted.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        # Before the snapshot is taken: whoever removes a forwarder waits for this transaction.
        connection.execute(_LOCK)
        end = hour + HOUR
        scope: dict[str, object] = {"table": table, "hour": hour, "end": end, "limit": limit}
        rows = connection.cursor(binary=True).execute(_SELECT, scope).fetchall()
        if not rows:
            return None
        frame = codec.in_order(to_frame([row[1:] for row in rows])).select(SCHEMA.names())
        number = _next_part(connection, table, hour)
        key = lake.bronze_key(table, hour, number)
        data = codec.encode(frame)
        days = rows_per_day(data)
        payload_bytes = int(frame["payload"].bin.size().sum())
        sha256 = hashlib.sha256(data).hexdigest()
        part = Part(key, len(frame), len(data), payload_bytes, sha256, days, rows_per_minute(frame))
        _record(connection, table, hour, number, part, run_id=run_id)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO bronze_days (object_key, day, row_count) VALUES (%s, %s, %s)",
                [(key, day, count) for day, count in days.items()],
            )
        store.put(lake.BRONZE, key, data)
        verify(store, key, len(frame), content_hash(frame))
        scope["last_id"] = rows[-1][0]
        _set_aside(connection, scope)
        deleted = connection.execute(_DELETE, scope).rowcount
        if deleted != len(rows):
            raise ArchiveError(f"{key}: copied {len(rows)} rows but would delete {deleted}")
    return part


def _set_aside(connection: psycopg.Connection, scope: Mapping[str, object]) -> None:
    """Keep what is about to be deleted for the forwarder that is furthest behind."""
    cursor = connection.execute(_CURSOR).fetchone()
    if cursor is not None:
        xid, row_id = cursor
        connection.execute(_SET_ASIDE, {**scope, "cursor_xid": xid, "cursor_id": row_id})


def verify(store: BlobStore, key: str, row_count: int, digest: str) -> None:
    """Compare a stored object with what was to be stored; raises ArchiveError."""
    data = store.get(lake.BRONZE, key)
    with codec.naming(key):
        frame = codec.decode(data)
    if len(frame) != row_count or content_hash(frame) != digest:
        raise ArchiveError(f"{lake.BRONZE}/{key} does not hold what was written to it")


def drop_empty_partitions(connection: psycopg.Connection, now: datetime) -> None:
    """Drop every past hour's partition in which no message is left, whenever it was archived.

    An hour is archived before it is past for good, and its partition may be in use just then.
    """
    names = connection.execute(_PARTITIONS).fetchall()
    connection.rollback()  # its snapshot ends here
    for (name,) in names:
        hour = datetime.strptime(name, "raw_messages_%Y%m%d%H").replace(tzinfo=UTC)
        drop_empty_partition(connection, hour, now)


def drop_empty_partition(connection: psycopg.Connection, hour: datetime, now: datetime) -> bool:
    """Drop a past hour's partition of the outbox if no message is left and nobody holds it.

    Each statement sees what has been committed by then: an older snapshot would call a partition
    empty into which a writer committed while the lock was waited for.
    """
    name = f"raw_messages_{hour.astimezone(UTC):%Y%m%d%H}"
    if hour + 2 * HOUR > now:
        return False
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    try:
        with connection.transaction():  # a first look, which lets nobody wait
            if _has_rows(connection, name):
                return False
        with connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_TIMEOUT}'")
            connection.execute("LOCK TABLE ONLY raw_messages IN ACCESS EXCLUSIVE MODE")
            if _has_rows(connection, name):
                return False
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    except psycopg.errors.LockNotAvailable:
        return False  # in use: the next run tries again
    except psycopg.errors.UndefinedTable:
        return False  # there is none, or another run was faster
    return True


def _has_rows(connection: psycopg.Connection, table: str) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))
    row = connection.execute(query).fetchone()
    return bool(row and row[0])


def _next_part(connection: psycopg.Connection, table: str, hour: datetime) -> int:
    row = connection.execute(
        "SELECT count(*) FROM bronze_objects WHERE table_name = %s AND hour = %s", [table, hour]
    ).fetchone()
    return int(row[0]) if row else 0


def _record(
    connection: psycopg.Connection,
    table: str,
    hour: datetime,
    number: int,
    part: Part,
    *,
    run_id: str,
) -> None:
    connection.execute(
        "INSERT INTO bronze_objects"
        " (table_name, hour, part, object_key, row_count, size_bytes, sha256, run_id)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            table,
            hour,
            number,
            part.object_key,
            part.row_count,
            part.size_bytes,
            part.sha256,
            run_id,
        ],
    )
