"""Deliveries of GitHub's webhook in the operational database."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ota_api.hooks.schemas import Asset, Delivery, ReleaseEvent
from zenthos_core.alerts import RAISE, RESOLVE, Alert

_COLUMNS: Final = "id, repository, tag, state, detail, attempts, received_at, finished_at"
_CLAIM: Final = "SELECT pg_try_advisory_xact_lock(7205761, hashtext(%s))"


class DeliveryRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(
        self, delivery_id: UUID, body_sha256: bytes, event: ReleaseEvent, at: datetime
    ) -> bool:
        """False where there is one of that id or body."""
        cursor = await self._connection.execute(
            "INSERT INTO webhook_deliveries (id, body_sha256, repository, tag, assets, received_at)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (
                delivery_id,
                body_sha256,
                event.repository.full_name,
                event.release.tag_name,
                Jsonb(msgspec.to_builtins(event.release.assets)),
                at,
            ),
        )
        return cursor.rowcount == 1

    async def find_body(self, body_sha256: bytes) -> Delivery | None:
        """The delivery that came with this body."""
        return await self._one("body_sha256 = %s", body_sha256)

    async def find(self, delivery_id: UUID) -> Delivery | None:
        """By its id."""
        return await self._one("id = %s", delivery_id)

    async def assets(self, delivery_id: UUID) -> list[Asset]:
        """What the release had when it was announced."""
        cursor = await self._connection.execute(
            "SELECT assets FROM webhook_deliveries WHERE id = %s", (delivery_id,)
        )
        row = await cursor.fetchone()
        return msgspec.convert(row[0] if row else [], list[Asset])

    async def pending(self) -> list[UUID]:
        """What is to be done, the oldest first."""
        cursor = await self._connection.execute(
            "SELECT id FROM webhook_deliveries WHERE state = 'pending' ORDER BY received_at, id"
        )
        return [row[0] for row in await cursor.fetchall()]

    async def claim(self, delivery_id: UUID) -> bool:
        """Whether it is this transaction's until its end; a crash gives it back."""
        cursor = await self._connection.execute(_CLAIM, (str(delivery_id),))
        row = await cursor.fetchone()
        return bool(row and row[0])

    async def count_attempt(self, delivery_id: UUID) -> None:
        """One more has begun."""
        await self._connection.execute(
            "UPDATE webhook_deliveries SET attempts = attempts + 1 WHERE id = %s", (delivery_id,)
        )

    async def finish(self, delivery_id: UUID, state: str, detail: str, at: datetime) -> None:
        """How it ended."""
        await self._connection.execute(
            "UPDATE webhook_deliveries SET state = %s, detail = %s, finished_at = %s WHERE id = %s",
            (state, detail, at, delivery_id),
        )

    async def begin_anew(self, delivery_id: UUID) -> Delivery:
        """One that has failed, with all its attempts."""
        await self._connection.execute(
            "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, detail = '',"
            " finished_at = NULL WHERE id = %s AND state = 'failed'",
            (delivery_id,),
        )
        found = await self.find(delivery_id)
        assert found is not None, "deliveries are never removed"  # noqa: S101
        return found

    async def raise_alert(self, alert: Alert, at: datetime) -> None:
        """For people."""
        await self._connection.execute(RAISE.encode(), {**alert.parameters(), "at": at})

    async def resolve_alert(self, alert_type: str, subject: str, at: datetime) -> None:
        """What people were told of is over."""
        values = {"alert_type": alert_type, "subject": subject, "by": "system", "at": at}
        await self._connection.execute(RESOLVE.encode(), values)

    async def page(self, after: UUID | None, limit: int, state: str | None) -> list[Delivery]:
        """The newest first, from the first that came before `after`."""
        query = (
            f"SELECT {_COLUMNS} FROM webhook_deliveries"
            " WHERE (%(after)s::uuid IS NULL OR (received_at, id) <"
            " (SELECT received_at, id FROM webhook_deliveries WHERE id = %(after)s))"
            " AND (%(state)s::text IS NULL OR state = %(state)s)"
            " ORDER BY received_at DESC, id DESC LIMIT %(limit)s"
        )
        values: dict[str, Any] = {"after": after, "state": state, "limit": limit}
        async with self._connection.cursor(row_factory=class_row(Delivery)) as cursor:
            await cursor.execute(query.encode(), values)
            return await cursor.fetchall()

    async def _one(self, condition: str, value: object) -> Delivery | None:
        query = f"SELECT {_COLUMNS} FROM webhook_deliveries WHERE {condition}"
        async with self._connection.cursor(row_factory=class_row(Delivery)) as cursor:
            await cursor.execute(query.encode(), (value,))
            return await cursor.fetchone()
