"""Reads the devices that check in: alone within a transaction, or many at once.

Those that ask while a statement is under way are read together by the next one: a fleet that wakes
up at once costs a few statements, and a device that asks alone waits for no other. Each is read
after it has asked.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ota_api.releases.entitlement import DeviceState
from ota_api.rollouts.offers import Deployment, Offer, record_offer

Pool = AsyncConnectionPool[AsyncConnection]
AT_ONCE: Final = 200
"""Devices in one statement."""

_READ: Final = """
SELECT d.id, c.version, d.device_model, d.farm_id, d.tags, d.firmware_version, d.model_version,
  d.decommissioned_at IS NULL, d.tokens_valid_from, p.id, p.rollout_id, p.state, p.reason
FROM devices d CROSS JOIN catalogue c
LEFT JOIN deployments p ON p.device_id = d.id AND p.rollout_id = ANY(%s)
WHERE d.id = ANY(%s)
"""


class Asker(msgspec.Struct, frozen=True):
    """A device as the database has it at one moment, and the catalogue's version of that moment."""

    device: DeviceState
    in_use: bool
    tokens_valid_from: datetime | None
    catalogue_version: int
    deployments: dict[UUID, Deployment]
    """By rollout."""


class Askers(Protocol):
    """Where devices are read and offers recorded."""

    async def read(self, device_id: str, rollouts: Sequence[UUID]) -> Asker | None:
        """With its deployments of these rollouts; None where it is not registered."""

    async def record(self, now: datetime, offer: Offer) -> Deployment | None:
        """See `ota_api.rollouts.offers`."""


class InTransaction:
    """Within the caller's."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def read(self, device_id: str, rollouts: Sequence[UUID]) -> Asker | None:
        """One device."""
        found = await _read(self._connection, [device_id], rollouts)
        return found.get(device_id)

    async def record(self, now: datetime, offer: Offer) -> Deployment | None:
        """In the transaction."""
        return await record_offer(self._connection, now, offer)


class Together:
    """Devices that ask at the same time, over connections that commit each statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[str, Sequence[UUID], asyncio.Future[Asker | None]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def read(self, device_id: str, rollouts: Sequence[UUID]) -> Asker | None:
        """With the next statement."""
        future: asyncio.Future[Asker | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((device_id, rollouts, future))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await future

    async def record(self, now: datetime, offer: Offer) -> Deployment | None:
        """By itself."""
        async with self._pool.connection() as connection:
            return await record_offer(connection, now, offer)

    async def _read_all(self) -> None:
        """One statement after another until nobody waits."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                await self._read_batch(batch)
        finally:
            self._reading = None

    async def _read_batch(
        self, batch: list[tuple[str, Sequence[UUID], asyncio.Future[Asker | None]]]
    ) -> None:
        ids = [device_id for device_id, _, _ in batch]
        rollouts = list({rollout for _, wanted, _ in batch for rollout in wanted})
        try:
            found = await self._read_safely(ids, rollouts)
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for device_id, _, future in batch:
            if not future.done():
                future.set_result(found.get(device_id))

    async def _read_safely(self, ids: list[str], rollouts: list[UUID]) -> dict[str, Asker]:
        """Once more where the connection turns out to be dead, as after a restart."""
        connection: AsyncConnection | None = None
        try:
            async with self._pool.connection() as connection:
                return await _read(connection, ids, rollouts)
        except psycopg.OperationalError:
            if connection is None or not connection.broken:
                raise
        await self._pool.check()
        async with self._pool.connection() as connection:
            return await _read(connection, ids, rollouts)


async def _read(
    connection: AsyncConnection, ids: list[str], rollouts: Sequence[UUID]
) -> dict[str, Asker]:
    cursor = await connection.execute(_READ, (list(rollouts), ids), prepare=True)
    found: dict[str, Asker] = {}
    for row in await cursor.fetchall():
        asker = found.get(row[0])
        if asker is None:
            asker = found[row[0]] = _asker(row)
        if row[9] is not None:
            asker.deployments[row[10]] = Deployment(*row[9:])
    return found


def _asker(row: tuple[Any, ...]) -> Asker:
    device_id, version, model, farm_id, tags, firmware, model_version, in_use, valid_from = row[:9]
    device = DeviceState(device_id, model, farm_id, tags, firmware, model_version)
    return Asker(device, in_use, valid_from, version, {})
