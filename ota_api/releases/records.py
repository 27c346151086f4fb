"""Releases as people see them, and taking one back.

1. A withdrawn release is offered to nobody any more, and its rollouts that are open are aborted, in
   one transaction. What devices have installed stays.
2. Withdrawing again changes nothing: the first reason stands.
3. The release and then its rollouts are locked before anything changes, as each evaluation does, so
   that neither waits for the other.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.rollouts.service import Rollouts
from zenthos_core.errors import NotFoundError

_COLUMNS: Final = (
    "r.id, r.kind, r.name, r.version, r.release_counter, r.sha256, r.sha1, r.md5, r.size_bytes,"
    " r.key_id, r.expires_at, r.uploaded_at, r.published_by, r.required, r.rollout_percentage,"
    " r.reissue_of, r.withdrawn_at, r.withdrawn_by, r.withdrawal_reason, r.release_notes,"
    " r.manifest, r.signature, ARRAY(SELECT t.device_model FROM release_targets t"
    " WHERE t.release_id = r.id ORDER BY t.device_model) AS device_models,"
    " ARRAY(SELECT o.id FROM rollouts o WHERE o.release_id = r.id"
    " AND o.state IN ('created', 'running', 'paused') ORDER BY o.id) AS open_rollouts"
)
_CONDITIONS: Final = {
    "device_model": "EXISTS (SELECT FROM release_targets t WHERE t.release_id = r.id"
    " AND t.device_model = %(device_model)s)",
    "kind": "r.kind = %(kind)s",
    "name": "r.name = %(name)s",
    "version": "r.version = %(version)s",
    "withdrawn": "(r.withdrawn_at IS NOT NULL) = %(withdrawn)s",
    "after": "(r.uploaded_at, r.id) < (SELECT uploaded_at, id FROM releases WHERE id = %(after)s)",
}


class ReleaseRecords:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def page(self, limit: int, **filters: Any) -> list[dict[str, Any]]:
        """The newest first; filters that are None do not count."""
        given = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(_CONDITIONS[name] for name in given) or "true"
        query = (
            f"SELECT {_COLUMNS} FROM releases r WHERE {where}"
            " ORDER BY r.uploaded_at DESC, r.id DESC LIMIT %(limit)s"
        )
        return await self._rows(query, {**given, "limit": limit})

    async def find(self, release_id: UUID) -> dict[str, Any]:
        """One release; NotFoundError where there is none."""
        found = await self._rows(
            f"SELECT {_COLUMNS} FROM releases r WHERE r.id = %(id)s", {"id": release_id}
        )
        if not found:
            raise NotFoundError(f"no release {release_id}")
        return found[0]

    async def withdraw(
        self, rollouts: Rollouts, trail: AuditTrail, now: datetime, release_id: UUID, reason: str
    ) -> dict[str, Any]:
        """Rules 1 to 3; NotFoundError where there is no such release."""
        release = await self.find(release_id)
        await self.connection.execute(  # first, so that no rollout of it begins meanwhile
            "SELECT FROM releases WHERE id = %s FOR NO KEY UPDATE", (release_id,)
        )
        await self.connection.execute(
            "SELECT FROM rollouts WHERE release_id = %s ORDER BY id FOR UPDATE",
            (release_id,),
        )
        cursor = await self.connection.execute(
            "UPDATE releases SET withdrawn_at = %s, withdrawn_by = %s, withdrawal_reason = %s"
            " WHERE id = %s AND withdrawn_at IS NULL",
            (now, trail.actor.name, reason, release_id),
        )
        if not cursor.rowcount:
            return await self.find(release_id)
        aborted = await rollouts.abort_all_of(release_id, f"withdrawn: {reason}")
        await trail.record(
            Action.RELEASE_WITHDRAW,
            f"release {release['name']} {release['version']}",
            after={"id": str(release_id), "reason": reason, "rollouts_aborted": aborted},
        )
        return await self.find(release_id)

    async def _rows(self, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), values)
            return await cursor.fetchall()
