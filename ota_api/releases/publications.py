"""What publishing asks of the database, and adds to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from zenthos_core.manifest import Manifest, SignedManifest

_TARGETS = (
    "SELECT t.release_id, t.device_model, t.object_key, t.reissue, r.kind, r.name, r.version,"
    " r.sha256, r.sha1, r.md5, r.release_counter, r.expires_at, r.key_id, r.withdrawn_at,"
    " r.withdrawal_reason, r.manifest,"
    " ARRAY(SELECT m.device_model FROM release_targets m WHERE m.release_id = r.id)"
    " AS device_models"
    " FROM release_targets t JOIN releases r ON r.id = t.release_id"
    " WHERE t.device_model = ANY(%(models)s) AND t.version = %(version)s"
)


@dataclass(frozen=True)
class Taken:
    """A version that a device model has already."""

    release_id: UUID
    device_model: str
    object_key: str
    reissue: bool
    kind: str
    name: str
    version: str
    sha256: str
    sha1: str | None
    md5: str | None
    release_counter: int
    expires_at: datetime
    key_id: str
    withdrawn_at: datetime | None
    withdrawal_reason: str | None
    manifest: bytes
    device_models: list[str]
    """All of the release."""


class Publications:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def taken(self, manifest: Manifest) -> list[Taken]:
        """Who has that version: of firmware whatever its kind and name, of a model by its name."""
        is_model = manifest.kind == "model"
        same = "t.kind = 'model' AND t.name = %(name)s" if is_model else "t.kind <> 'model'"
        values = {
            "models": manifest.device_models,
            "version": manifest.version,
            "name": manifest.name,
        }
        query = f"{_TARGETS} AND {same} ORDER BY t.reissue, t.release_counter"
        async with self.connection.cursor(row_factory=class_row(Taken)) as cursor:
            await cursor.execute(query.encode(), values)
            return await cursor.fetchall()

    async def insert(
        self,
        signed: SignedManifest,
        manifest: Manifest,
        keys: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> UUID:
        """A release and its targets; `keys` are object keys by device model."""
        columns = {
            "kind": manifest.kind,
            "name": manifest.name,
            "version": manifest.version,
            "release_counter": manifest.release_counter,
            "sha256": manifest.sha256,
            "size_bytes": manifest.size,
            "manifest": signed.manifest,
            "signature": signed.signature,
            "key_id": manifest.key_id,
            "expires_at": datetime.fromtimestamp(manifest.expires, UTC),
            **settings,
        }
        names, places = ", ".join(columns), ", ".join(f"%({c})s" for c in columns)
        query = f"INSERT INTO releases ({names}) VALUES ({places}) RETURNING id"
        row = await (await self.connection.execute(query.encode(), columns)).fetchone()
        assert row is not None, "INSERT … RETURNING returns a row"  # noqa: S101
        await self._insert_targets(row[0], manifest, list(keys.items()))
        return UUID(str(row[0]))

    async def _insert_targets(
        self, release_id: UUID, manifest: Manifest, keys: Sequence[tuple[str, str]]
    ) -> None:
        async with self.connection.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO release_targets (release_id, device_model, kind, name, version,"
                " release_counter, object_key, reissue)"
                " SELECT %s, %s, kind, name, version, release_counter, %s, reissue_of IS NOT NULL"
                " FROM releases WHERE id = %s",
                [(release_id, model, key, release_id) for model, key in keys],
            )
