"""The outbox as one forwarder reads it: in order of commit, from where its cursor stands.

Rules:

1. Rows are read in the order of (xid, id). Ids alone are not in order of commit: a worker may
   take an id first and commit last.
2. A row is read only once every transaction as old as its own has ended (xid below the oldest one
   that runs), so that no row can appear behind the cursor.
3. The cursor moves after the other side has confirmed, never before: a crash repeats a batch.
4. What bronze archives meanwhile is moved to `forward_backlog` in one transaction, so that one
   statement finds each row in exactly one of the two tables.
5. A new forwarder begins with the transactions that run when it first starts. What had been
   committed before is history: it is in the archive.
6. At most one worker forwards under a name: the one that holds the advisory lock.

See docs/adr/0006 on why.
"""

import logging
from typing import Final, cast

import psycopg

from ingest.forward.envelope import Position, Row
from zenthos_core.errors import CursorError

logger = logging.getLogger(__name__)

LOCK_CLASS: Final = 0x7A666F72  # any number that all workers agree on
INDEX: Final = "raw_messages_forward"

_LOCK: Final = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
_HAS_INDEX: Final = "SELECT to_regclass(%s) IS NOT NULL"
_CREATE_INDEX: Final = f"CREATE INDEX IF NOT EXISTS {INDEX} ON raw_messages (xid, id)"
_REGISTER: Final = """
INSERT INTO forwarders (name, xid, id) VALUES (%s, pg_snapshot_xmin(pg_current_snapshot()), 0)
ON CONFLICT DO NOTHING"""
_CURSOR: Final = """
SELECT xid::text::bigint, id, xid > pg_snapshot_xmax(pg_current_snapshot())
FROM forwarders WHERE name = %s"""
_PART: Final = """
(SELECT xid, id, message_type, topic, payload, received_at FROM {}
 WHERE (xid, id) > (%(xid)s::text::xid8, %(id)s) AND xid < pg_snapshot_xmin(pg_current_snapshot())
 ORDER BY xid, id LIMIT %(limit)s)"""
_READ: Final = f"""
SELECT xid::text::bigint, id, message_type, topic, payload, received_at FROM (
{_PART.format("raw_messages")} UNION ALL {_PART.format("forward_backlog")}
) rows ORDER BY rows.xid, id LIMIT %(limit)s"""
_MOVE: Final = """
UPDATE forwarders SET xid = %s::text::xid8, id = %s, forwarded = forwarded + %s, updated_at = now()
WHERE name = %s"""
_TIDY: Final = """
DELETE FROM forward_backlog
WHERE (xid, id) <= (SELECT xid, id FROM forwarders ORDER BY xid, id LIMIT 1)"""


class Outbox:
    """The outbox under one forwarder's name. Every method may raise psycopg.Error."""

    def __init__(self, connection: psycopg.AsyncConnection, name: str, position: Position) -> None:
        self._connection = connection
        self._name = name
        self._position = position

    @classmethod
    async def open(cls, connection: psycopg.AsyncConnection, name: str) -> "Outbox | None":
        """Take the forwarder's place; None where another worker has it.

        The connection is in autocommit, and the place is held for as long as it lasts.

        Raises:
            CursorError: the cursor is of another database.
        """
        if not await _truth(connection, _LOCK, LOCK_CLASS, name):
            return None
        if not await _truth(connection, _HAS_INDEX, INDEX):
            await _create_index(connection)
        await connection.execute(_REGISTER, [name])
        return cls(connection, name, await _cursor(connection, name))

    async def read(self, limit: int) -> list[Row]:
        """The next rows, at most `limit`; none where all has been forwarded."""
        scope = {"xid": str(self._position.xid), "id": self._position.id, "limit": limit}
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(_READ, scope)
        return [Row(Position(xid, id), *rest) for xid, id, *rest in await cursor.fetchall()]

    async def move(self, position: Position, forwarded: int) -> None:
        """Remember that everything up to a position is forwarded; committed on return.

        Raises:
            CursorError: somebody has removed the forwarder.
        """
        parameters = [str(position.xid), position.id, forwarded, self._name]
        moved = await self._connection.execute(_MOVE, parameters)
        if not moved.rowcount:
            raise CursorError(f"the cursor of {self._name} is gone: it begins anew from now")
        self._position = position

    async def tidy(self) -> None:
        """Delete what every forwarder has passed of the rows that bronze has set aside."""
        await self._connection.execute(_TIDY)

    async def close(self) -> None:
        """End the connection, and with it the hold on the name."""
        await self._connection.close()


async def _truth(connection: psycopg.AsyncConnection, statement: str, *parameters: object) -> bool:
    row = await (await connection.execute(statement, parameters)).fetchone()
    return bool(row and row[0])


async def _create_index(connection: psycopg.AsyncConnection) -> None:
    """Ingest waits while it is built, so it must not itself wait long: the next try comes soon."""
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '500ms'")
        await connection.execute(_CREATE_INDEX)
    logger.info("made the index %s", INDEX)


async def _cursor(connection: psycopg.AsyncConnection, name: str) -> Position:
    row = await (await connection.execute(_CURSOR, [name])).fetchone()
    xid, id, in_future = cast("tuple[int, int, bool]", row)
    if in_future:
        raise CursorError(
            f"the cursor of {name} is ahead of this database, as after restoring a dump:"
            f" `zenthos forwarders remove {name}` lets it begin anew"
        )
    return Position(xid, id)
