"""Actions and attributes of one device in the operational database."""

from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ota_api.ddi.mapping import Action, Told
from ota_api.rollouts.transitions import UNDER_WAY

METADATA_KEY: Final = "ddi"
"""Of devices.metadata: what the device has told in its configData."""
TOLD_AT_KEY: Final = "ddi_told_at"
"""And when."""
CANCEL_CONFIRMED: Final = "cancel-confirmed"
CANCEL_REJECTED: Final = "cancel-rejected"
"""Stages of events: what the device said to a cancellation."""
LOGGED: Final = "logged"
"""In an event's detail: errors that the device has logged on the way."""
MOST_ACTIONS: Final = 50
"""Of a device that are looked at, the newest: one is open, one is installed."""

_LAST_OFFER: Final = (
    "coalesce((SELECT max(p.id) FROM deployment_events p"
    " WHERE p.deployment_id = e.deployment_id AND p.state = 'pending'), 0)"
)
"""Events count from here on: an action that was superseded may be offered again."""
_ACTION: Final = (
    "SELECT d.id, d.rollout_id, d.state, d.offered_at, d.confirmed_at, t.device_model, r.kind,"
    " r.name, r.version, r.sha256, r.sha1, r.md5, r.size_bytes, r.required, t.object_key,"
    " coalesce(e.begun, false) AS begun, coalesce(e.answered, false) AS cancel_answered,"
    " coalesce(e.rejected, false) AS cancel_rejected"
    " FROM deployments d JOIN rollouts o ON o.id = d.rollout_id"
    " JOIN release_targets t ON t.release_id = o.release_id AND t.device_model = o.device_model"
    " JOIN releases r ON r.id = o.release_id"
    " CROSS JOIN LATERAL (SELECT bool_or(e.state = ANY(%(under_way)s)) AS begun,"
    " bool_or(e.stage = ANY(%(answers)s)) AS answered, bool_or(e.stage = %(rejected)s) AS rejected"
    f" FROM deployment_events e WHERE e.deployment_id = d.id AND e.id >= {_LAST_OFFER}) e"
    " WHERE d.device_id = %(device_id)s AND r.kind <> 'model'"
)


class DdiRepository:
    """Works within the transaction of its connection, for one device."""

    def __init__(self, connection: AsyncConnection, device_id: str) -> None:
        self._connection = connection
        self._device_id = device_id

    async def actions(self) -> list[Action]:
        """Its own, the newest first."""
        return await self._select(f"{_ACTION} ORDER BY d.id DESC LIMIT {MOST_ACTIONS}")

    async def action(self, action_id: int) -> Action | None:
        """One of its own."""
        found = await self._select(f"{_ACTION} AND d.id = %(id)s", id=action_id)
        return found[0] if found else None

    async def history(self, action_id: int, most: int) -> list[str]:
        """Messages of an action, the newest first."""
        cursor = await self._connection.execute(
            "SELECT concat_ws(': ', to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') || ' ' || state,"
            " stage, reason) FROM deployment_events WHERE deployment_id = %s"
            " ORDER BY id DESC LIMIT %s",
            (action_id, most),
        )
        return [row[0] for row in await cursor.fetchall()]

    async def last_logged(self, action_id: int) -> str | None:
        """Errors that the device has logged last."""
        query = (
            "SELECT e.detail ->> %(key)s FROM deployment_events e WHERE e.deployment_id = %(id)s"
            f" AND e.detail ? %(key)s AND e.id >= {_LAST_OFFER} ORDER BY e.id DESC LIMIT 1"
        )
        cursor = await self._connection.execute(query.encode(), {"id": action_id, "key": LOGGED})
        row = await cursor.fetchone()
        return row[0] if row else None

    async def answer_cancel(self, action_id: int, at: datetime, answer: str, reason: str) -> None:
        """Keep what the device says to a cancellation."""
        await self._connection.execute(
            "INSERT INTO deployment_events (deployment_id, at, state, stage, reason)"
            " VALUES (%s, %s, 'aborted', %s, %s)",
            (action_id, at, answer, reason),
        )

    async def prove(self, action_id: int, at: datetime) -> None:
        """A success, where the device had closed the action; see ota_api.rollouts.evaluation."""
        await self._connection.execute(
            "WITH proven AS (UPDATE deployments SET state = 'success', stage = NULL, reason = NULL,"
            " changed_at = %(at)s WHERE id = %(id)s AND confirmed_at IS NOT NULL"
            " AND state IN ('rebooting', 'timed_out', 'aborted') RETURNING id)"
            " INSERT INTO deployment_events (deployment_id, at, state, detail)"
            " SELECT id, %(at)s, 'success', %(detail)s FROM proven",
            {"id": action_id, "at": at, "detail": Jsonb({"proven_by": "configData"})},
        )

    async def told(self, *, lock: bool = False) -> Told:
        """What the device has told of itself."""
        cursor = await self._connection.execute(
            "SELECT device_model, metadata -> %s, last_reading IS NOT NULL,"
            " (metadata ->> %s)::timestamptz FROM devices"
            " WHERE id = %s" + (" FOR NO KEY UPDATE" if lock else ""),
            (METADATA_KEY, TOLD_AT_KEY, self._device_id),
        )
        row = await cursor.fetchone()
        assert row is not None, "devices are never deleted"  # noqa: S101
        return Told(*row)

    async def keep(
        self, attributes: dict[str, str], firmware_version: str | None, at: datetime
    ) -> None:
        """Store attributes, and the version where there is one to take over."""
        await self._connection.execute(
            "UPDATE devices SET metadata = metadata || %s,"
            " firmware_version = coalesce(%s, firmware_version) WHERE id = %s",
            (
                Jsonb({METADATA_KEY: attributes, TOLD_AT_KEY: at.isoformat()}),
                *(firmware_version, self._device_id),
            ),
        )

    async def _select(self, query: str, **parameters: Any) -> list[Action]:
        given = {"device_id": self._device_id, "under_way": list(UNDER_WAY), **parameters}
        given |= {"answers": [CANCEL_CONFIRMED, CANCEL_REJECTED], "rejected": CANCEL_REJECTED}
        async with self._connection.cursor(row_factory=class_row(Action)) as cursor:
            await cursor.execute(query.encode(), given)
            return await cursor.fetchall()
