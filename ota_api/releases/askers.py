"""Reads the devices that check in: alone within a transaction, or many at once.

Those that ask while a statement is under way are read together by the next one. Each is read after
it has asked. So are first offers written, those of a rollout together: what locks one rollout keeps
no others waiting.
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

from ota_api.gathering import Gathered
from ota_api.releases.entitlement import DeviceState
from ota_api.rollouts.offers import Deployment, Offer, record_offers
from zenthos_core.errors import BusyError

Pool = AsyncConnectionPool[AsyncConnection]
AT_ONCE: Final = 200
"""Devices in one statement."""
RECORDING_MAX: Final = 4
"""Statements that write offers: each may wait for its rollout, which reads shall not do."""
RECORDING_WAIT_S: Final = 5.0

_READ: Final = """
SELECT d.id, c.version, d.device_model, d.farm_id, d.tags, d.firmware_version, d.model_version,
  d.decommissioned_at IS NULL, d.tokens_valid_from, p.id, p.rollout_id, p.state, p.reason
FROM devices d CROSS JOIN catalogue c
LEFT JOIN LATERAL (
  SELECT id, rollout_id, state, reason FROM deployments
  WHERE device_id = d.id AND rollout_id = ANY(%s) OFFSET 0
) p ON true
WHERE d.id = ANY(%s)
"""
"""OFFSET 0: device by device; joined as a whole, all deployments of a rollout would be read."""


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
        (deployment,) = await record_offers(self._connection, now, [offer])
        return deployment


class Together:
    """Devices that ask at the same time, over connections that commit each statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._recording = asyncio.Semaphore(RECORDING_MAX)
        self._reads = Gathered(self._read_all, AT_ONCE)
        self._offers: dict[UUID, Gathered[tuple[datetime, Offer], Deployment | None]] = {}
        """By rollout, while there are any."""

    async def read(self, device_id: str, rollouts: Sequence[UUID]) -> Asker | None:
        """With the next statement."""
        return await self._reads.ask((device_id, rollouts))

    async def record(self, now: datetime, offer: Offer) -> Deployment | None:
        """With the rollout's next statement."""
        offers = self._offers.get(offer.rollout_id)
        if offers is None:
            offers = self._offers[offer.rollout_id] = Gathered(self._record_all, AT_ONCE)
        try:
            return await offers.ask((now, offer))
        finally:
            if offers.idle and self._offers.get(offer.rollout_id) is offers:
                del self._offers[offer.rollout_id]

    async def _read_all(self, wanted: Sequence[tuple[str, Sequence[UUID]]]) -> list[Asker | None]:
        """Once more where the connection turns out to be dead, as after a restart."""
        ids = [device_id for device_id, _ in wanted]
        rollouts = list({rollout for _, some in wanted for rollout in some})
        connection: AsyncConnection | None = None
        try:
            async with self._pool.connection() as connection:
                found = await _read(connection, ids, rollouts)
        except psycopg.OperationalError:
            if connection is None or not connection.broken:
                raise
            await self._pool.check()
            async with self._pool.connection() as connection:
                found = await _read(connection, ids, rollouts)
        return [found.get(device_id) for device_id in ids]

    async def _record_all(
        self, wanted: Sequence[tuple[datetime, Offer]]
    ) -> list[Deployment | None]:
        try:
            async with asyncio.timeout(RECORDING_WAIT_S):
                await self._recording.acquire()
        except TimeoutError:
            raise BusyError("offers wait for their rollouts: ask again in a moment") from None
        try:
            async with self._pool.connection() as connection:
                now = max(moment for moment, _ in wanted)
                return await record_offers(connection, now, [offer for _, offer in wanted])
        finally:
            self._recording.release()


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
