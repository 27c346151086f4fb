"""Counters in this process, as a storage of `limits`.

1. A counter lasts for its window, from the first count on.
2. Memory is bounded: beyond MAX_KEYS, what began first is forgotten.
3. A clock that is set back begins a new window rather than one that lasts for days.
4. A count costs the same however many counters there are. (The library's own storage looks through
   all of them with each count: milliseconds where there are 10,000.)
"""

from collections.abc import Callable
from typing import Final

from limits.aio.storage import Storage

MAX_KEYS: Final = 100_000
SWEPT_AT_ONCE: Final = 2
"""More than one comes at a time, so that what has ended never piles up."""


class BoundedMemory(Storage):
    """All counters of one window's length: the first is the one that ends first."""

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock
        self._counters: dict[str, tuple[int, float, float]] = {}
        """Count, beginning, end."""

    @property
    def base_exceptions(self) -> type[Exception]:
        """Of a storage that is away; this one never is."""
        return MemoryError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """The count, with this one; the window begins with the first."""
        now = self._clock()
        found = self._counters.get(key)
        if found is not None and found[1] <= now < found[2]:
            count, began, ends = found
            self._counters[key] = (count + amount, began, ends)
            return count + amount
        self._counters.pop(key, None)
        self._sweep(now)
        self._counters[key] = (amount, now, now + expiry)
        return amount

    async def get(self, key: str) -> int:
        """The count; 0 after its end."""
        count, began, ends = self._counters.get(key, (0, 0.0, 0.0))
        return count if began <= self._clock() < ends else 0

    async def get_expiry(self, key: str) -> float:
        """When the window ends, in epoch seconds; now where there is none."""
        found = self._counters.get(key)
        return found[2] if found else self._clock()

    async def clear(self, key: str) -> None:
        """Forget it."""
        self._counters.pop(key, None)

    async def reset(self) -> int:
        """Forget all; how many there were."""
        forgotten = len(self._counters)
        self._counters.clear()
        return forgotten

    async def check(self) -> bool:
        """Whether it can be used."""
        return True

    def _sweep(self, now: float) -> None:
        for _ in range(SWEPT_AT_ONCE):
            oldest = next(iter(self._counters), None)
            if oldest is None:
                return
            ended = self._counters[oldest][2] <= now
            if not ended and len(self._counters) < MAX_KEYS:
                return
            del self._counters[oldest]
