"""Asks how far forwarders are, and takes one out for good: what an operator does about them."""

from datetime import datetime
from typing import Final, NamedTuple

import psycopg
from psycopg import errors
from psycopg.rows import class_row

from ingest.forward.cursor import INDEX, LOCK_CLASS
from zenthos_core.errors import ConflictError, ForwardError, NotFoundError

LOCK_TIMEOUT: Final = "5s"

_STATES: Final = """
SELECT f.name, f.forwarded, f.updated_at, count(w.id) AS waiting,
  coalesce(extract(epoch FROM now() - min(w.received_at)), 0)::float8 AS lag_s
FROM forwarders f LEFT JOIN (
  SELECT xid, id, received_at FROM raw_messages
  UNION ALL SELECT xid, id, received_at FROM forward_backlog
) w ON (w.xid, w.id) > (f.xid, f.id)
GROUP BY f.name ORDER BY f.name"""
_HOLD: Final = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
_FREE: Final = """
DELETE FROM forward_backlog b
WHERE NOT EXISTS (SELECT FROM forwarders f WHERE (f.xid, f.id) < (b.xid, b.id))"""


class ForwarderState(NamedTuple):
    """How far a forwarder is; `lag_s` is the age of the oldest message that waits for it."""

    name: str
    forwarded: int
    updated_at: datetime
    waiting: int
    lag_s: float


def forwarder_states(connection: psycopg.Connection) -> list[ForwarderState]:
    """Every forwarder that has ever started and was not removed; counts what waits row by row."""
    with connection.cursor(row_factory=class_row(ForwarderState)) as cursor:
        return cursor.execute(_STATES).fetchall()


def remove_forwarder(connection: psycopg.Connection, name: str) -> None:
    """Forget a forwarder and what is kept for it alone; with the last one, the index goes, too.

    Raises:
        ConflictError: a worker forwards under that name.
        NotFoundError: there is none of that name.
        ForwardError: the outbox is in use for longer than LOCK_TIMEOUT.
    """
    try:
        with connection.transaction():
            _remove(connection, name)
    except errors.LockNotAvailable:
        raise ForwardError("the outbox is in use, it may be archived: try again soon") from None


def _remove(connection: psycopg.Connection, name: str) -> None:
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        # Waits, as Postgres lets go of the lock a moment after a forwarder's connection has closed.
        connection.execute(_HOLD, [LOCK_CLASS, name])
    except errors.LockNotAvailable:
        advice = f"{name} is forwarding: take its URL out and restart ingest first"
        raise ConflictError(advice) from None
    # No archive runs that still sets rows aside for it.
    connection.execute("LOCK TABLE forward_backlog IN SHARE ROW EXCLUSIVE MODE")
    if not connection.execute("DELETE FROM forwarders WHERE name = %s", [name]).rowcount:
        raise NotFoundError(f"there is no forwarder {name}: see `zenthos forwarders`")
    connection.execute(_FREE)
    if connection.execute("SELECT FROM forwarders LIMIT 1").fetchone() is None:
        connection.execute(f"DROP INDEX IF EXISTS {INDEX}")
