"""Partitions of the tables that ingest fills: outbox by hour, readings, status and logs by day.

Rules:

1. Making one waits for no reader of the table, nor lets any wait: it is made beside the table and
   then attached (unlike CREATE … PARTITION OF). An hour's archive may be running when the next
   hour begins.
2. So does dropping one: it is detached CONCURRENTLY, which locks out nobody, and then dropped. Who
   uses the table at that moment is waited for, a second at most; the next call goes on from there.
3. A day is dropped once the hot window has passed all of it; an hour of the outbox only by bronze.
4. Where the migration found TimescaleDB, the day tables are hypertables: they make their chunks
   themselves, and drop_chunks takes the place of rule 2. Callers need not know.

No threads, no clock: what is needed and what is too old is handed in.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import errors, sql

logger = logging.getLogger(__name__)

DAY_TABLES: Final = ("telemetry_hot", "device_status", "device_logs")
"""What the hot window rules: one partition a day of `time`."""

# Any numbers that all workers agree on.
_MAKE_LOCK: Final = 0x7A656E74686F73
_DROP_LOCK: Final = _MAKE_LOCK + 1
_LOCK_TIMEOUT: Final = "1s"

# Whether the table is partitioned here, and its partition: NULL none, false there, true not quite
# detached yet.
_FIND: Final = """
SELECT t.relkind = 'p', i.inhdetachpending FROM pg_class t
LEFT JOIN pg_inherits i ON i.inhparent = t.oid AND i.inhrelid = to_regclass(%(name)s)
WHERE t.oid = %(table)s::regclass
"""
_IS_NATIVE: Final = "SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass"
# One whose detaching was cut short comes first: a table may have only one such. One that was
# detached and not dropped has no line in pg_inherits.
_EXPIRED: Final = """
SELECT c.relname, i.inhdetachpending FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = %(table)s::regclass)
  AND c.relkind = 'r' AND c.relname ~ ('^' || %(table)s || '_[0-9]{8}$')
  AND c.relname < %(oldest)s COLLATE "C"
ORDER BY i.inhdetachpending IS TRUE DESC, c.relname
"""
_DROP_CHUNKS: Final = "SELECT drop_chunks(%s::regclass, older_than => %s::timestamptz)"


class Partition(NamedTuple):
    """One partition: its table, where it starts (UTC) and how long it is."""

    table: str
    start: datetime
    length: timedelta

    @property
    def name(self) -> str:
        """Such as raw_messages_2026112301 or telemetry_hot_20261123."""
        pattern = "%Y%m%d%H" if self.length < timedelta(days=1) else "%Y%m%d"
        return f"{self.table}_{self.start:{pattern}}"


def raw_partition(received_at: float) -> Partition:
    """Where the outbox keeps what was received at this epoch second."""
    start = datetime.fromtimestamp(received_at, UTC).replace(minute=0, second=0, microsecond=0)
    return Partition("raw_messages", start, timedelta(hours=1))


def day_partition(table: str, day: int) -> Partition:
    """Where one of DAY_TABLES keeps a day, counted since 1970."""
    return Partition(table, _start_of(day), timedelta(days=1))


class Partitions:
    """Makes partitions before they are needed and remembers which there are."""

    def __init__(self) -> None:
        self._known: set[Partition] = set()

    def ensure(self, connection: psycopg.Connection, needed: set[Partition]) -> bool:
        """Make those that are missing, in a transaction of their own; whether any was unknown."""
        missing = needed - self._known
        if not missing:
            return False
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MAKE_LOCK])
            for partition in sorted(missing):
                _make(connection, partition)
        self._known |= missing
        return True

    def forget(self) -> None:
        """Look again next time: someone dropped one (bronze does, once it has archived it)."""
        self._known.clear()


def drop_expired(connection: psycopg.Connection, oldest_day: int) -> None:
    """Drop what the day tables hold of days before this one (counted since 1970).

    Who uses such a day is waited for a second; the next call has to do it then. One worker does
    it at a time. The connection is in autocommit: DETACH … CONCURRENTLY is a transaction itself.
    """
    with _alone(connection) as alone:
        for table in DAY_TABLES if alone else ():
            try:
                for name in _drop(connection, table, oldest_day):
                    logger.info("dropped %s, which is past the hot window", name)
            except errors.LockNotAvailable:
                logger.info("old days of %s are in use and will be dropped later", table)


def forget_cold(connection: psycopg.Connection, oldest_day: int) -> int:
    """Forget the ids of cold messages received before this day; returns how many there were."""
    return connection.execute(
        "DELETE FROM cold_messages WHERE received_at < %s", [_start_of(oldest_day)]
    ).rowcount


def _start_of(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[bool]:
    """Whether no other worker is dropping; none will while this lasts, and locks time out."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_DROP_LOCK]).fetchone()
    alone = bool(row and row[0])
    if alone:
        connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    try:
        yield alone
    finally:
        if alone and not connection.closed:
            connection.execute("RESET lock_timeout")
            connection.execute("SELECT pg_advisory_unlock(%s)", [_DROP_LOCK])


def _drop(connection: psycopg.Connection, table: str, oldest_day: int) -> Iterator[str]:
    """Drop one after the other; yields the name of each."""
    oldest = day_partition(table, oldest_day)
    native = connection.execute(_IS_NATIVE, [table]).fetchone()
    if native is None or not native[0]:
        for (chunk,) in connection.execute(_DROP_CHUNKS, [table, oldest.start]).fetchall():
            yield str(chunk)
        return
    expired = connection.execute(_EXPIRED, {"table": table, "oldest": oldest.name}).fetchall()
    for name, detaching in expired:
        _detach(connection, table, name, detaching)
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        yield name


def _detach(connection: psycopg.Connection, table: str, name: str, detaching: bool | None) -> None:
    """Detach a partition, or end what was begun; nothing to do where `detaching` is None."""
    if detaching is not None:
        connection.execute(
            sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
                sql.Identifier(table),
                sql.Identifier(name),
                sql.SQL("FINALIZE" if detaching else "CONCURRENTLY"),
            )
        )


def _make(connection: psycopg.Connection, partition: Partition) -> None:
    """Make a partition where it is missing; a hypertable lacks none.

    One that was detached is attached again with what it holds: the hot window was made longer
    before it was dropped.
    """
    table, name = sql.Identifier(partition.table), sql.Identifier(partition.name)
    found = connection.execute(_FIND, {"table": partition.table, "name": partition.name}).fetchone()
    native, detaching = found or (False, None)
    if not native or detaching is False:
        return
    _detach(connection, partition.table, partition.name, detaching)
    start, end = sql.Literal(partition.start), sql.Literal(partition.start + partition.length)
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        ).format(name, table)
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, name, start, end
        )
    )
