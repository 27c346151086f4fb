"""Bytes a second, with the clock handed in.

1. A bucket holds at most `burst` bytes, is full at first, and fills at `rate_per_s`.
2. What is taken beyond what it holds is owed: whoever takes it waits until it has come in, and
   whoever takes after that waits longer.
3. A clock that is set back fills nothing, and empties nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_BUCKETS: Final = 20_000


@dataclass
class Bucket:
    """Times are seconds of any clock that counts on."""

    rate_per_s: float
    burst: float
    _level: float = 0.0
    _at: float | None = None

    def take(self, amount: int, now: float) -> float:
        """Seconds to wait before sending so many bytes, by rules 1 to 3."""
        if self._at is None:
            self._level = self.burst
        else:
            self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate_per_s)
        self._at = now
        self._level -= amount
        return max(0.0, -self._level / self.rate_per_s)


class Buckets:
    """One for each name; beyond MAX_BUCKETS, the one used longest ago is forgotten."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, amount: int, now: float) -> float:
        """As of the name's own bucket."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._rate_per_s, self._burst)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket.take(amount, now)
