"""When devices last asked for the latest firmware and the latest model: kept in memory, written in
batches. Each is a column, since who asks for one has not asked for the other.

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
_FIRMWARE: Final = "checked_in_at"
_MODEL: Final = "model_checked_in_at"

# Rows that ingest is writing are skipped and come again: two that wait for each other's rows would
# be a deadlock.
_WRITE: Final = """
WITH free AS (
  SELECT d.id, v.at FROM devices d JOIN unnest(%s::text[], %s::float8[]) AS v (id, at) USING (id)
  FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE devices d SET {column} = greatest(d.{column}, to_timestamp(free.at))
FROM free WHERE d.id = free.id RETURNING d.id
"""
_logger = logging.getLogger(__name__)


class SeenDevices:
    """Of a process."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection]) -> None:
        self._pool = pool
        self._at: dict[str, dict[str, float]] = {_FIRMWARE: {}, _MODEL: {}}

    def note(self, device_id: str, now: float, *, model: bool = False) -> None:
        """It asks for the latest at this moment (epoch seconds)."""
        at = self._at[_MODEL if model else _FIRMWARE]
        at.pop(device_id, None)
        at[device_id] = now
        if len(at) > MAX_DEVICES:
            del at[next(iter(at))]

    async def flush(self) -> int:
        """Write what is known now; how many rows were written."""
        return sum([await self._flush(column, at) for column, at in self._at.items()])

    async def _flush(self, column: str, at: dict[str, float]) -> int:
        written = 0
        query = _WRITE.format(column=column).encode()
        for _ in range(-(-len(at) // ROWS_A_WRITE)):
            batch = dict(list(at.items())[:ROWS_A_WRITE])
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query, (list(batch), list(batch.values())))
                done = {row[0] for row in await cursor.fetchall()}
            _forget(at, batch, done)
            written += len(done)
        return written


def _forget(at: dict[str, float], batch: dict[str, float], done: set[str]) -> None:
    """What is written; the rest of the batch goes to the end of the queue."""
    for device_id, moment in batch.items():
        if at.get(device_id) != moment:
            continue  # it has asked again meanwhile
        del at[device_id]
        if device_id not in done:
            at[device_id] = moment


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
