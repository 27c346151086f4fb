"""When devices last asked for an update: kept in memory, written in batches.

A check-in shall not wait for a write. What is not written yet when the process is killed is lost:
a few seconds, of a time that is looked at in hours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from ota_api.background import running

FLUSH_S: Final = 5.0
MAX_DEVICES: Final = 100_000
"""Beyond these, what came first is forgotten."""
ROWS_A_WRITE: Final = 5_000

# Rows that ingest is writing are skipped and come again: two that wait for each other's rows would
# be a deadlock.
_WRITE: Final = """
WITH free AS (
  SELECT d.id, v.at FROM devices d JOIN unnest(%s::text[], %s::float8[]) AS v (id, at) USING (id)
  FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE devices d SET checked_in_at = greatest(d.checked_in_at, to_timestamp(free.at))
FROM free WHERE d.id = free.id RETURNING d.id
"""
_logger = logging.getLogger(__name__)


class SeenDevices:
    """Of a process."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool
        self._at: dict[str, float] = {}

    def note(self, device_id: str, now: float) -> None:
        """It asks at this moment (epoch seconds)."""
        self._at.pop(device_id, None)
        self._at[device_id] = now
        if len(self._at) > MAX_DEVICES:
            del self._at[next(iter(self._at))]

    async def flush(self) -> int:
        """Write what is known now; how many rows were written."""
        written = 0
        for _ in range(-(-len(self._at) // ROWS_A_WRITE)):
            batch = dict(list(self._at.items())[:ROWS_A_WRITE])
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_WRITE, (list(batch), list(batch.values())))
                done = {row[0] for row in await cursor.fetchall()}
            self._forget(batch, done)
            written += len(done)
        return written

    def _forget(self, batch: dict[str, float], done: set[str]) -> None:
        """What is written; the rest of the batch goes to the end of the queue."""
        for device_id, at in batch.items():
            if self._at.get(device_id) != at:
                continue  # it has asked again meanwhile
            del self._at[device_id]
            if device_id not in done:
                self._at[device_id] = at


@asynccontextmanager
async def flushing(seen: SeenDevices, every_s: float = FLUSH_S) -> AsyncIterator[None]:
    """Flush every few seconds, and once at the end."""
    try:
        async with running(_flush_for_ever(seen, every_s)):
            yield
    finally:
        await _try_flush(seen)


async def _flush_for_ever(seen: SeenDevices, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await _try_flush(seen)


async def _try_flush(seen: SeenDevices) -> None:
    try:
        await seen.flush()
    except (psycopg.Error, PoolTimeout) as error:
        _logger.warning("check-in times wait for the database: %s", error)
