"""The audit log in the operational database."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ota_api.audit.schemas import Action, AuditEntry


class AuditRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(
        self,
        actor: tuple[str, str, str | None],
        action: Action,
        subject: str,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
    ) -> None:
        """A change; `actor` is name, role and session."""
        changed = [None if values is None else Jsonb(values) for values in (before, after)]
        await self._connection.execute(
            "INSERT INTO audit_log (actor, role, session_id, action, subject, before, after)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (*actor, action, subject, *changed),
        )

    async def page(
        self, after: int | None, limit: int, filters: dict[str, str | None]
    ) -> list[AuditEntry]:
        """The newest first, from the first below `after`, that equal the filters given."""
        given = {column: value for column, value in filters.items() if value is not None}
        below = ["id < %(after)s"] if after is not None else []
        conditions = " AND ".join([*below, *(f"{c} = %({c})s" for c in given)]) or "true"
        query = f"SELECT * FROM audit_log WHERE {conditions} ORDER BY id DESC LIMIT %(limit)s"
        async with self._connection.cursor(row_factory=class_row(AuditEntry)) as cursor:
            await cursor.execute(query.encode(), {"after": after, "limit": limit, **given})
            return await cursor.fetchall()
