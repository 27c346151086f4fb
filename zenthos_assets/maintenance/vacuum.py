"""VACUUM (ANALYZE) of each table, bounded in time; what it found and left.

1. Autovacuum does the daily work. This catches what it was too late for, and analyses the
   partitioned tables as a whole, which it never does.
2. A table that is locked, or that takes too long, is left for next week; nobody waits for it.
"""

import time
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import errors, sql

LOCK_TIMEOUT: Final = "5s"
TABLE_TIMEOUT: Final = "30min"

_TABLES: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p' FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 2, 3"""
# relpages, since pg_relation_size waits for whoever has locked the table.
_STATE: Final = """
SELECT pg_stat_get_dead_tuples(oid), relpages * current_setting('block_size')::bigint
FROM pg_class WHERE oid = %s"""


@dataclass(frozen=True)
class Vacuumed:
    """What became of one table."""

    table: str
    outcome: str
    """`done`, or why it was left: `in use`, `took too long`, `dropped meanwhile`."""

    dead_before: int
    dead_after: int
    size_bytes: int
    """Of its rows, as of the newest statistics."""

    seconds: float

    @property
    def left_out(self) -> bool:
        """Whether it still needs what it did not get."""
        return self.outcome in ("in use", "took too long")


def vacuum_tables(
    connection: psycopg.Connection,
    *,
    table_timeout: str = TABLE_TIMEOUT,
    lock_timeout: str = LOCK_TIMEOUT,
) -> list[Vacuumed]:
    """Vacuum and analyse every table of a database; the connection must be in autocommit."""
    connection.execute(f"SET lock_timeout = '{lock_timeout}'")
    connection.execute(f"SET statement_timeout = '{table_timeout}'")
    tables = connection.execute(_TABLES).fetchall()
    return [_vacuum(connection, *table) for table in tables]


def _vacuum(
    connection: psycopg.Connection, oid: int, schema: str, name: str, partitioned: bool
) -> Vacuumed:
    began = time.monotonic()
    dead_before, _ = _state(connection, oid)
    verb = "ANALYZE" if partitioned else "VACUUM (ANALYZE)"  # partitions are vacuumed one by one
    statement = sql.SQL(f"{verb} {{}}").format(sql.Identifier(schema, name))
    outcome = "done"
    try:
        connection.execute(statement)
    except errors.LockNotAvailable:
        outcome = "in use"
    except errors.QueryCanceled:
        outcome = "took too long"
    except errors.UndefinedTable:
        outcome = "dropped meanwhile"
    dead_after, size = _state(connection, oid)
    seconds = time.monotonic() - began
    return Vacuumed(f"{schema}.{name}", outcome, dead_before, dead_after, size, seconds)


def _state(connection: psycopg.Connection, oid: int) -> tuple[int, int]:
    """Dead rows and bytes; zeros for a table that is gone."""
    row = connection.execute(_STATE, [oid]).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
