"""All releases and rollouts in memory, for as long as `catalogue.version` is the same.

The database changes the version with every release and rollout (migration 0005), in the same
transaction. Version and content are read in one snapshot, so what a check-in decides by is as new
as the version that it read itself; a replica that has not seen a change yet reads again.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from ota_api.releases.entitlement import Candidate, Rollout, Shelf
from ota_api.releases.metadata import encode_metadata
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, RELEASE_COLUMNS, Release, Slot
from zenthos_core.manifest import Manifest

_VERSION: Final = "SELECT version FROM catalogue"
_RELEASES: Final = (
    f"SELECT {RELEASE_COLUMNS}, r.withdrawn_at, r.withdrawal_reason"
    " FROM release_targets t JOIN releases r ON r.id = t.release_id"
)
_ROLLOUTS: Final = (
    "SELECT id, release_id, device_model, farm_id, tag, phases, control_percentage, state, phase,"
    " paused_reason, started_at IS NOT NULL AS begun FROM rollouts ORDER BY created_at DESC, id"
)


class Catalogue:
    """What was published and who is offered it, at one version."""

    def __init__(self, version: int, candidates: Iterable[Candidate]) -> None:
        self.version = version
        self._by_model: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            self._by_model[candidate.release.device_model].append(candidate)
        self._shelves: dict[Slot, Shelf] = {}

    def shelf(self, slot: Slot) -> Shelf:
        """The releases of a slot, of firmware those of both kinds; slots without any are not kept,
        for anyone may name them."""
        if slot.kinds != MODEL_KINDS:
            slot = Slot(slot.device_model, FIRMWARE_KINDS)
        shelf = self._shelves.get(slot)
        if shelf is None:
            shelf = Shelf([c for c in self._by_model.get(slot.device_model, ()) if _in(c, slot)])
            if shelf.newest_first:
                self._shelves[slot] = shelf
        return shelf


class CatalogueCache:
    """The catalogue of a process."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection], base_url: str) -> None:
        """The pool is for this alone: requests wait here that hold a connection of another."""
        self._pool = pool
        self._base_url = base_url
        self._reading = asyncio.Lock()
        self.current = Catalogue(0, [])
        """At first of no version there is."""

    async def replace(self, stale: Catalogue) -> Catalogue:
        """Read it again, unless another request has done so since."""
        async with self._reading:
            if self.current is stale:
                self.current = await self._read()
            return self.current

    async def as_of(self, connection: AsyncConnection) -> Catalogue:
        """The catalogue of the version there is now."""
        row = await (await connection.execute(_VERSION)).fetchone()
        current = self.current
        return current if row == (current.version,) else await self.replace(current)

    async def _read(self) -> Catalogue:
        async with self._pool.connection() as connection, _snapshot(connection):
            cursor = connection.cursor(row_factory=dict_row)
            version = (await (await cursor.execute(_VERSION)).fetchone() or {})["version"]
            rollouts: dict[tuple[UUID, str], list[Rollout]] = defaultdict(list)
            for row in await (await cursor.execute(_ROLLOUTS)).fetchall():
                rollouts[row["release_id"], row["device_model"]].append(_rollout(row))
            rows = await (await cursor.execute(_RELEASES)).fetchall()
        candidates = [
            _candidate(row, tuple(rollouts[row["id"], row["device_model"]]), self._base_url)
            for row in rows
        ]
        return Catalogue(version, candidates)


@asynccontextmanager
async def _snapshot(connection: AsyncConnection) -> AsyncIterator[None]:
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _in(candidate: Candidate, slot: Slot) -> bool:
    release = candidate.release
    return release.kind in slot.kinds and slot.name in {None, release.name}


def _rollout(row: dict[str, Any]) -> Rollout:
    finished = row["state"] == "finished"
    return Rollout(
        id=row["id"],
        state=row["state"],
        phase=row["phase"],
        percentage=row["phases"][-1 if finished else row["phase"] - 1],
        control_percentage=row["control_percentage"],
        farm_id=row["farm_id"],
        tag=row["tag"],
        paused_reason=row["paused_reason"],
        begun=row["begun"],
    )


def _candidate(row: dict[str, Any], rollouts: tuple[Rollout, ...], base_url: str) -> Candidate:
    withdrawn_at, reason = row.pop("withdrawn_at"), row.pop("withdrawal_reason")
    manifest = msgspec.json.decode(row["manifest"], type=Manifest)
    release = Release(**row)
    return Candidate(
        release=release,
        device_models=tuple(manifest.device_models),
        min_firmware=manifest.requires.min_firmware,
        withdrawn=withdrawn_at is not None,
        withdrawal_reason=reason,
        rollouts=rollouts,
        metadata=encode_metadata(release, manifest, base_url),
    )
