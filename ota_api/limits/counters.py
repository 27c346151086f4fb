"""Counts by key in windows of a fixed length: in Redis for all workers together, or in memory.

1. Without Redis each worker counts for itself, in bounded memory.
2. A Redis that is away keeps nobody waiting for long: what is asked of it takes at most TIMEOUT_S
   for a connection and twice that for an answer, then Redis is left alone for RETRY_S and each
   worker counts for itself meanwhile, from nothing. That is logged once and measured.
3. Keys have their limit's name, so that limits never share a counter.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from limits.aio.storage import RedisStorage
from opentelemetry import metrics
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ota_api.limits.memory import BoundedMemory

TIMEOUT_S: Final = 0.25
RETRY_S: Final = 5.0
PREFIX: Final = "zenthos"
CONNECTIONS: Final = 64

_logger = logging.getLogger(__name__)
_away: Final = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.limits_storage_failures", description="Times that Redis did not count."
)


class SharedStorage:
    """Redis, by rule 2; `monotonic` gives seconds that only go on."""

    def __init__(self, url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url,
            timeout=TIMEOUT_S,  # more at once than there are connections wait for one
            max_connections=CONNECTIONS,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # once more at once: a connection that Redis has closed meanwhile is found out by use
            retry=Retry(NoBackoff(), 1),
        )
        self._storage = RedisStorage(
            f"async+{url}",
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._monotonic = monotonic
        self._away_until = 0.0
        self._is_away = False

    async def incr(self, key: str, window_s: int, amount: int) -> int | None:
        """The count, or None while Redis is away."""
        if self._monotonic() < self._away_until:
            return None
        try:
            count = await self._storage.incr(key, window_s, amount)
        except (RedisError, OSError) as error:
            self._leave_alone(error)
            return None
        if self._is_away:
            self._is_away = False
            _logger.info("Redis counts again: workers have their limits together")
        return count

    async def get_expiry(self, key: str) -> float | None:
        """When the window ends, in epoch seconds; None while Redis is away."""
        if self._monotonic() < self._away_until:
            return None
        try:
            return await self._storage.get_expiry(key)
        except (RedisError, OSError) as error:
            self._leave_alone(error)
            return None

    async def clear(self, key: str) -> None:
        """Forget it, unless Redis is away."""
        if self._monotonic() < self._away_until:
            return
        try:
            await self._storage.clear(key)
        except (RedisError, OSError) as error:
            self._leave_alone(error)

    async def close(self) -> None:
        """End its connections."""
        await self._pool.aclose()

    def _leave_alone(self, error: Exception) -> None:
        _away.add(1)
        self._away_until = self._monotonic() + RETRY_S
        if not self._is_away:
            self._is_away = True
            _logger.error(
                "Redis cannot count requests (%s): each worker counts for itself; "
                "start Redis, or correct ZENTHOS_LIMITS_URL",
                error,
            )


class Counter:
    """Of one limit."""

    def __init__(
        self,
        name: str,
        window_s: int,
        clock: Callable[[], float],
        shared: SharedStorage | None = None,
    ) -> None:
        self.window_s = window_s
        self.clock = clock
        self._name = name
        self._shared = shared
        self._memory = BoundedMemory(clock)

    async def add(self, key: str, amount: int = 1) -> int:
        """The count in the key's window, with this one."""
        if self._shared is not None:
            count = await self._shared.incr(f"{self._name}/{key}", self.window_s, amount)
            if count is not None:
                return count
        return await self._memory.incr(key, self.window_s, amount)

    async def left_s(self, key: str) -> float:
        """Seconds until the key's window ends; all of it where nobody knows."""
        ends = None
        if self._shared is not None:
            ends = await self._shared.get_expiry(f"{self._name}/{key}")
        if ends is None:
            ends = await self._memory.get_expiry(key)
        left_s = ends - self.clock()
        return left_s if 0 < left_s <= self.window_s else float(self.window_s)

    async def clear(self, key: str) -> None:
        """Begin anew."""
        await self._memory.clear(key)
        if self._shared is not None:
            await self._shared.clear(f"{self._name}/{key}")
