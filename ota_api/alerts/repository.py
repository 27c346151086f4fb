"""Alerts in the operational database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ota_api.alerts.schemas import AlertState, AlertView

_STATE: Final = (
    "CASE WHEN a.resolved_at IS NOT NULL THEN 'resolved'"
    " WHEN a.acknowledged_at IS NOT NULL THEN 'acknowledged' ELSE 'open' END"
)
_SELECT: Final = (
    f"SELECT a.id, a.alert_type, a.severity, {_STATE} AS state, a.subject, a.device_id,"
    " a.farm_id, a.rollout_id, a.message, a.evidence, a.occurrences, a.created_at,"
    " a.last_raised_at, a.acknowledged_at, a.acknowledged_by, a.resolved_at, a.resolved_by"
    " FROM alerts a"
)
_IS: Final = {
    AlertState.OPEN: "a.resolved_at IS NULL AND a.acknowledged_at IS NULL",
    AlertState.ACKNOWLEDGED: "a.resolved_at IS NULL AND a.acknowledged_at IS NOT NULL",
    AlertState.RESOLVED: "a.resolved_at IS NOT NULL",
}
OF_FARM: Final = (
    "(a.farm_id = %(farm_id)s OR (a.farm_id IS NULL"
    " AND a.device_id IN (SELECT id FROM devices WHERE farm_id = %(farm_id)s)))"
)
"""Alerts `a` of the farm, and those of its devices that name no farm."""


@dataclass(frozen=True, kw_only=True)
class AlertFilter:
    """Every filter that is given must hold."""

    state: AlertState | None = None
    severity: str | None = None
    alert_type: str | None = None
    farm_id: UUID | None = None
    device_id: str | None = None
    since: datetime | None = None

    def conditions(self) -> list[str]:
        """As SQL over `a`, to be joined by AND."""
        equal = ("severity", "alert_type", "device_id")
        return [
            *([_IS[self.state]] if self.state is not None else []),
            *([OF_FARM] if self.farm_id is not None else []),
            *(["a.last_raised_at >= %(since)s"] if self.since is not None else []),
            *(f"a.{name} = %({name})s" for name in equal if getattr(self, name) is not None),
        ]


class AlertRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def page(self, after: UUID | None, limit: int, wanted: AlertFilter) -> list[AlertView]:
        """The newest first, from the first that is older than `after`."""
        older = "(a.created_at, a.id) < (SELECT created_at, id FROM alerts WHERE id = %(after)s)"
        conditions = [*([older] if after is not None else []), *wanted.conditions()]
        where = " AND ".join(conditions) or "true"
        return await self._select(
            f"WHERE {where} ORDER BY a.created_at DESC, a.id DESC LIMIT %(limit)s",
            {**vars(wanted), "after": after, "limit": limit},
        )

    async def find(self, alert_id: UUID, *, lock: bool = False) -> AlertView | None:
        """One alert; locked for the transaction, if it is to be changed."""
        found = await self._select(
            "WHERE a.id = %(id)s" + " FOR UPDATE OF a" * lock, {"id": alert_id}
        )
        return found[0] if found else None

    async def mark(
        self, alert_id: UUID, what: Literal["acknowledged", "resolved"], now: datetime, who: str
    ) -> None:
        """Set when, and by whom."""
        query = f"UPDATE alerts SET {what}_at = %(now)s, {what}_by = %(who)s WHERE id = %(id)s"
        await self._connection.execute(query.encode(), {"id": alert_id, "now": now, "who": who})

    async def _select(self, clauses: str, values: dict[str, Any]) -> list[AlertView]:
        async with self._connection.cursor(row_factory=class_row(AlertView)) as cursor:
            await cursor.execute(f"{_SELECT} {clauses}".encode(), values)
            return await cursor.fetchall()
