"""Rollouts and deployments in the operational database."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from ota_api.rollouts.evaluation import RolloutRow, read_rollout
from ota_api.rollouts.terms import Terms

_COLUMNS: Final = (
    "o.id, o.release_id, r.kind, r.name, r.version, o.device_model, o.farm_id, o.tag, o.phases,"
    " o.control_percentage, o.success_threshold, o.error_threshold, o.min_devices, o.timeout_s,"
    " o.state, o.phase, o.paused_reason, o.rollback_of, o.created_by, o.created_at, o.started_at,"
    " o.phase_started_at, o.ended_at"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM rollouts o JOIN releases r ON r.id = o.release_id"
_DEPLOYMENTS: Final = (
    "SELECT d.id, d.rollout_id, d.device_id, r.kind, r.name, r.version, d.state, d.stage,"
    " d.reason, d.confirmed_at, d.offered_at, d.changed_at FROM deployments d"
    " JOIN rollouts o ON o.id = d.rollout_id JOIN releases r ON r.id = o.release_id"
)
_TERMS: Final = (
    "SELECT r.kind, r.name, r.version, r.release_counter, r.key_id, r.expires_at,"
    " r.withdrawn_at IS NOT NULL AS withdrawn,"
    " array_agg(t.device_model ORDER BY t.device_model) AS device_models"
    " FROM releases r JOIN release_targets t ON t.release_id = r.id WHERE r.id = %s GROUP BY r.id"
)

MOST_EVENTS: Final = 200
"""Of a deployment that are told."""


class RolloutRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def find(self, rollout_id: UUID, *, lock: bool = False) -> RolloutRow | None:
        """One rollout; locked for the transaction, if it is to be changed."""
        query = f"{_SELECT} WHERE o.id = %(id)s" + (" FOR UPDATE OF o" * lock)
        found = await read_rollout(self.connection, query, {"id": rollout_id})
        return found[0] if found else None

    async def page(
        self, after: UUID | None, limit: int, filters: dict[str, Any]
    ) -> list[RolloutRow]:
        """The newest first, that equal the filters given."""
        given = {column: value for column, value in filters.items() if value is not None}
        conditions = [f"o.{column} = %({column})s" for column in given]
        if after is not None:
            conditions.append(
                "(o.created_at, o.id) < (SELECT created_at, id FROM rollouts WHERE id = %(after)s)"
            )
        where = " AND ".join(conditions) or "true"
        query = f"{_SELECT} WHERE {where} ORDER BY o.created_at DESC, o.id DESC LIMIT %(limit)s"
        values = {**given, "after": after, "limit": limit}
        return await read_rollout(self.connection, query, values)

    async def open_of(self, release_id: UUID) -> list[UUID]:
        """Rollouts of a release that have not ended, in an order to lock them by."""
        cursor = await self.connection.execute(
            "SELECT id FROM rollouts WHERE release_id = %s"
            " AND state IN ('created', 'running', 'paused') ORDER BY id",
            (release_id,),
        )
        return [row[0] for row in await cursor.fetchall()]

    async def insert(self, values: dict[str, Any]) -> UUID:
        """A rollout; the columns are the caller's."""
        names, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
        query = f"INSERT INTO rollouts ({names}) VALUES ({places}) RETURNING id"
        row = await (await self.connection.execute(query.encode(), values)).fetchone()
        assert row is not None, "INSERT … RETURNING returns a row"  # noqa: S101
        return UUID(str(row[0]))

    async def update(self, rollout_id: UUID, changes: dict[str, Any]) -> None:
        """Set the columns given."""
        names = ", ".join(f"{name} = %({name})s" for name in changes)
        query = f"UPDATE rollouts SET {names} WHERE id = %(id)s"
        await self.connection.execute(query.encode(), {**changes, "id": rollout_id})

    async def abort_deployments(
        self, reason: str, now: datetime, *, rollout_id: UUID | None = None,
        device_id: str | None = None, release_id: UUID | None = None,
    ) -> int:  # fmt: skip
        """End those of a rollout, a device or a release that are open; how many there were."""
        whose = "rollout_id = %(rollout_id)s" if rollout_id else "device_id = %(device_id)s"
        if release_id:
            whose = "rollout_id IN (SELECT id FROM rollouts WHERE release_id = %(release_id)s)"
        query = (
            f"WITH open AS (SELECT id FROM deployments WHERE {whose}"
            " AND state IN ('pending', 'downloading', 'installing', 'rebooting')"
            " ORDER BY id FOR UPDATE),"  # in an order, as offers that supersede them
            " ended AS (UPDATE deployments d"
            " SET state = 'aborted', reason = %(reason)s, changed_at = %(now)s"
            " FROM open WHERE d.id = open.id RETURNING d.id)"
            " INSERT INTO deployment_events (deployment_id, at, state, reason)"
            " SELECT id, %(now)s, 'aborted', %(reason)s FROM ended"
        )
        values = {
            "rollout_id": rollout_id, "device_id": device_id, "release_id": release_id,
            "now": now, "reason": reason,
        }  # fmt: skip
        return (await self.connection.execute(query.encode(), values)).rowcount

    async def terms(self, release_id: UUID, *, lock: bool = False) -> Terms | None:
        """Of a release; locked, until the end of the transaction nobody withdraws it."""
        if lock:
            query = "SELECT FROM releases WHERE id = %s FOR SHARE"
            await self.connection.execute(query, (release_id,))
        async with self.connection.cursor(row_factory=class_row(Terms)) as cursor:
            await cursor.execute(_TERMS, (release_id,))
            return await cursor.fetchone()

    async def keep_evaluation(
        self, rollout_id: UUID, at: datetime, action: str, reasons: list[dict[str, str]]
    ) -> None:
        """In place of the one before."""
        await self.connection.execute(
            "INSERT INTO rollout_evaluations (rollout_id, at, action, reasons)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT (rollout_id) DO UPDATE SET"
            " at = excluded.at, action = excluded.action, reasons = excluded.reasons",
            (rollout_id, at, action, Jsonb(reasons)),
        )

    async def last_evaluation(self, rollout_id: UUID) -> dict[str, Any] | None:
        """When, what and why; None where it has not been evaluated."""
        found = await self._rows(
            "SELECT at, action, reasons FROM rollout_evaluations WHERE rollout_id = %(id)s",
            {"id": rollout_id},
        )
        return found[0] if found else None

    async def failures(self, rollout_id: UUID) -> list[dict[str, Any]]:
        """How devices failed, the most frequent first."""
        return await self._rows(
            "SELECT stage, reason, count(*) AS devices FROM deployments"
            " WHERE rollout_id = %(id)s AND state IN ('failure', 'timed_out')"
            " GROUP BY stage, reason ORDER BY devices DESC, stage, reason LIMIT 20",
            {"id": rollout_id},
        )

    async def deployments(
        self, after: int, limit: int, *, rollout_id: UUID | None = None,
        device_id: str | None = None, state: str | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Of a rollout in the order of their offers, or of a device, the newest first."""
        given = {"rollout_id": rollout_id, "device_id": device_id, "state": state}
        conditions = [f"d.{name} = %({name})s" for name, value in given.items() if value]
        newest_first = rollout_id is None
        if after or not newest_first:
            conditions.append("d.id < %(after)s" if newest_first else "d.id > %(after)s")
        order = "DESC" if newest_first else "ASC"
        query = (
            f"{_DEPLOYMENTS} WHERE {' AND '.join(conditions)} ORDER BY d.id {order} LIMIT %(limit)s"
        )
        return await self._rows(query, {**given, "after": after, "limit": limit})

    async def events(self, deployment_ids: list[int]) -> list[dict[str, Any]]:
        """Steps of deployments, the oldest first; of each the newest at most."""
        return await self._rows(
            "SELECT e.deployment_id, e.at, e.state, e.stage, e.reason, e.detail"
            " FROM unnest(%(ids)s::bigint[]) AS d (id) CROSS JOIN LATERAL ("
            " SELECT * FROM deployment_events WHERE deployment_id = d.id"
            " ORDER BY id DESC LIMIT %(most)s) e ORDER BY e.id",
            {"ids": deployment_ids, "most": MOST_EVENTS},
        )

    async def decisions(self, rollout_id: UUID, after: int, limit: int) -> list[dict[str, Any]]:
        """Its changes in the audit log, the newest first."""
        return await self._rows(
            "SELECT id, at, actor, action, before, after FROM audit_log"
            " WHERE subject = %(subject)s AND (%(after)s = 0 OR id < %(after)s)"
            " ORDER BY id DESC LIMIT %(limit)s",
            {"subject": f"rollout {rollout_id}", "after": after, "limit": limit},
        )

    async def _rows(self, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), values)
            return await cursor.fetchall()
