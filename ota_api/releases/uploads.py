"""Objects before their releases: written, read back, and removed where no release came of them.

1. A row in `uploads` is there, committed, before an object is written. The transaction that inserts
   the release removes it; a server that dies in between leaves the row, never an object unknown.
2. An object's name has the hash of its content, so that publications at once never overwrite each
   other's, and the same content again is the same object.
3. The sweeper removes objects whose row is older than KEEP_S and that no release names, then the
   row, which it has locked: who publishes the same again waits for it and writes the object anew.
4. A publication whose row was swept meanwhile is refused: its object may be gone.
"""

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final

import psycopg
from anyio import to_thread
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from ota_api.releases.contents import CHUNK_BYTES
from ota_api.resources import Resources
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError, BlobStoreError, ConflictError

KEEP_S: Final = 3600.0
_SWEPT_AT_ONCE: Final = 100
_logger = logging.getLogger(__name__)


async def begin_uploads(connection: AsyncConnection, keys: Iterable[str], now: datetime) -> None:
    """Rule 1; in an order, so that two publications never wait for each other."""
    for key in sorted(keys):
        await connection.execute(
            "INSERT INTO uploads (object_key, started_at) VALUES (%s, %s)"
            " ON CONFLICT (object_key) DO UPDATE SET started_at = excluded.started_at",
            (key, now),
        )


async def end_uploads(connection: AsyncConnection, keys: Iterable[str]) -> None:
    """Rules 1 and 4."""
    wanted = sorted(keys)
    cursor = await connection.execute("DELETE FROM uploads WHERE object_key = ANY(%s)", (wanted,))
    if cursor.rowcount != len(wanted):
        raise ConflictError("the upload took too long and was cleared away: publish it again")


def store_verified(store: BlobStore, key: str, file: BinaryIO, sha256: str) -> None:
    """Write an object and read it back; ArchiveError where other bytes come."""
    file.seek(0)
    store.put_file(lake.FIRMWARE, key, file)
    found = hashlib.sha256()
    with store.open(lake.FIRMWARE, key) as stored:
        while chunk := stored.read(CHUNK_BYTES):
            found.update(chunk)
    if found.hexdigest() != sha256:
        raise ArchiveError(f"{key} was read back from the store with other bytes: check the store")


async def sweep(resources: Resources) -> list[str]:
    """Rule 3; the objects removed."""
    before = datetime.fromtimestamp(resources.clock(), UTC) - timedelta(seconds=KEEP_S)
    removed: list[str] = []
    async with resources.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT object_key, EXISTS (SELECT FROM release_targets t"
            " WHERE t.object_key = u.object_key) FROM uploads u WHERE started_at < %s"
            " ORDER BY object_key LIMIT %s FOR UPDATE OF u SKIP LOCKED",
            (before, _SWEPT_AT_ONCE),
        )
        for key, named in await cursor.fetchall():
            if not named:
                await to_thread.run_sync(resources.store.delete, lake.FIRMWARE, key)
                removed.append(key)
            await connection.execute("DELETE FROM uploads WHERE object_key = %s", (key,))
    return removed


async def keep_swept(resources: Resources) -> None:
    """Sweep at each interval, until cancelled."""
    while True:
        try:
            for key in await sweep(resources):
                _logger.info("removed %s, of which no release came", key)
        except (psycopg.Error, PoolTimeout, OSError, BlobStoreError) as error:
            _logger.warning("uploads are not swept: %s", error)
        await asyncio.sleep(resources.settings.ota_sweep_interval_s)
