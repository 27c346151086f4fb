"""Failed attempts are few, for each key: an account, a device, an address.

1. After `most` failures within a window, the key is refused until the window has passed.
2. An attempt counts when it begins, so that many at once are not let through; one that succeeds
   is given back.
3. Memory is bounded, and a clock that is set back begins a new window (`ota_api.limits.memory`).
4. Workers with one Redis count together.
"""

import math
from dataclasses import dataclass

from ota_api.limits.counters import Counter
from zenthos_core.errors import ThrottledError


@dataclass(frozen=True)
class Throttle:
    """`most` failures in a window of the counter's."""

    what: str
    """Such as `logins`; told to who is refused."""
    most: int
    counter: Counter

    async def begin(self, key: str) -> None:
        """Count an attempt; ThrottledError by rule 1."""
        if await self.counter.add(key) > self.most:
            await self.counter.add(key, -1)
            left_s = math.ceil(await self.counter.left_s(key))
            raise ThrottledError(f"too many failed {self.what}", max(1, left_s))

    async def succeed(self, key: str) -> None:
        """Give back the attempt that has just succeeded."""
        if await self.counter.add(key, -1) <= 0:
            await self.counter.clear(key)
