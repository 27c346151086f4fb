"""Releases in the operational database: a row for each, and one for each device model it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

PUBLISH_LOCK: Final = 7_205_760
"""Advisory lock that publications take turns by."""

FIRMWARE_KINDS: Final = ("firmware-bundle", "esp-image")
MODEL_KINDS: Final = ("model",)

RELEASE_COLUMNS: Final = (
    "r.id, t.device_model, r.kind, r.name, r.version, t.object_key, r.sha256, r.size_bytes,"
    " r.manifest, r.signature, r.key_id, r.release_counter, r.expires_at, r.uploaded_at,"
    " r.required, r.rollout_percentage, r.release_notes"
)
_SELECT: Final = (
    f"SELECT {RELEASE_COLUMNS} FROM release_targets t JOIN releases r ON r.id = t.release_id"
)


@dataclass(frozen=True)
class Release:
    """A release, as one device model may install it."""

    id: UUID
    device_model: str
    kind: str
    name: str
    version: str
    object_key: str
    sha256: str
    size_bytes: int
    manifest: bytes
    signature: bytes
    key_id: str
    release_counter: int
    expires_at: datetime
    uploaded_at: datetime
    required: bool
    rollout_percentage: int
    release_notes: str


@dataclass(frozen=True)
class Slot:
    """Where releases are looked for: a device model, kinds, and for models their name."""

    device_model: str
    kinds: tuple[str, ...]
    name: str | None = None

    def describe(self) -> str:
        """For people."""
        what = f"model {self.name}" if self.name is not None else " or ".join(self.kinds)
        return f"{self.device_model} ({what})"

    def question(self) -> str:
        """The path that asks for the latest, as a device sends it."""
        if self.name is not None:
            return f"/models/{self.device_model}/{self.name}/latest"
        kind = f"?kind={self.kinds[0]}" if len(self.kinds) == 1 else ""
        return f"/firmware/{self.device_model}/latest{kind}"

    def condition(self) -> str:
        """As SQL over the parameters below."""
        named = " AND t.name = %(name)s" if self.name is not None else ""
        return f"t.device_model = %(device_model)s AND t.kind = ANY(%(kinds)s){named}"

    def parameters(self) -> dict[str, Any]:
        """For the condition."""
        return {"device_model": self.device_model, "kinds": list(self.kinds), "name": self.name}


class ReleaseRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def lock_publishing(self) -> None:
        """Wait for other publications; until the end of the transaction there is no other."""
        await self.connection.execute("SELECT pg_advisory_xact_lock(%s)", (PUBLISH_LOCK,))

    async def find(self, slot: Slot, version: str) -> Release | None:
        """One version, of its newest issue; expired or not: a device may have to explain itself."""
        return await self._one(
            f"{_SELECT} WHERE {slot.condition()} AND t.version = %(version)s"
            " ORDER BY t.release_counter DESC LIMIT 1",
            slot.parameters() | {"version": version},
        )

    async def newest_counters(self, device_models: Sequence[str], kind: str) -> dict[str, int]:
        """The highest release_counter of each model, 0 for none; one for all kinds of firmware,
        which a device has one of."""
        kinds = FIRMWARE_KINDS if kind in FIRMWARE_KINDS else (kind,)
        cursor = await self.connection.execute(
            "SELECT device_model, max(release_counter) FROM release_targets"
            " WHERE device_model = ANY(%s) AND kind = ANY(%s) GROUP BY device_model",
            (list(device_models), list(kinds)),
        )
        return dict.fromkeys(device_models, 0) | dict(await cursor.fetchall())

    async def _one(self, query: str, parameters: dict[str, Any]) -> Release | None:
        async with self.connection.cursor(row_factory=class_row(Release)) as cursor:
            await cursor.execute(query.encode(), parameters)
            return await cursor.fetchone()
