"""Partitions of the tables that ingest fills: raw_messages by hour, telemetry_hot by day.

A new one is made beside the table and then attached, which (unlike CREATE … PARTITION OF) waits
for no reader of the table: an hour's archive may be running when the next hour begins.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import errors, sql

logger = logging.getLogger(__name__)

_LOCK: Final = 0x7A656E74686F73  # any number that all workers agree on
_EXPIRED: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'telemetry_hot'::regclass AND c.relname < %s COLLATE "C"
"""


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
    """Where a table keeps what is about a day, counted since 1970."""
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return Partition(table, start, timedelta(days=1))


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
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            for partition in sorted(missing):
                if not _exists(connection, partition):
                    _create(connection, partition)
        self._known |= missing
        return True

    def forget(self) -> None:
        """Look again next time: someone dropped one (bronze does, once it has archived it)."""
        self._known.clear()


def drop_expired(connection: psycopg.Connection, oldest_day: int) -> None:
    """Drop what telemetry_hot holds of days before this one (counted since 1970).

    A reader of the table is waited for a second; then the next hour has to do it.
    """
    for (name,) in connection.execute(
        _EXPIRED, [day_partition("telemetry_hot", oldest_day).name]
    ).fetchall():
        try:
            with connection.transaction():
                connection.execute("SET LOCAL lock_timeout = '1s'")
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
        except errors.LockNotAvailable:
            logger.info("%s is in use and will be dropped later", name)
            return
        logger.info("dropped %s, which is past the hot window", name)


def _exists(connection: psycopg.Connection, partition: Partition) -> bool:
    row = connection.execute("SELECT to_regclass(%s)", [partition.name]).fetchone()
    return row is not None and row[0] is not None


def _create(connection: psycopg.Connection, partition: Partition) -> None:
    table, name = sql.Identifier(partition.table), sql.Identifier(partition.name)
    start, end = sql.Literal(partition.start), sql.Literal(partition.start + partition.length)
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(
            name, table
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, name, start, end
        )
    )
