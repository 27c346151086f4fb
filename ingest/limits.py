"""How much a device may send: token buckets, by the time of receipt. Pure.

Rules:

1. A bucket holds at most `burst` messages and gains `per_s` each second; each message takes one.
2. Live messages take from one bucket; what a device sends late takes from a larger one: a reading
   marked `backlog`, or any message more than a minute older than its receipt, which is how an
   hour looks that the broker has held back while we were away.
3. A clock that is set back forgives: no device waits longer than an empty bucket takes to fill.

Each worker counts what it receives itself.
"""

from typing import Final, NamedTuple

LATE_S: Final = 60.0


class Bucket(NamedTuple):
    """Messages a second, and how many at once."""

    per_s: float
    burst: float


class RateLimiter:
    """Says of each message whether it is within the limit.

    Kept as the generic cell rate algorithm (ITU-T I.371): the time at which the bucket will be
    full again is all there is to know of a bucket.
    """

    def __init__(self, live: Bucket, late: Bucket) -> None:
        self._live = 1 / live.per_s, live.burst / live.per_s
        self._late = 1 / late.per_s, late.burst / late.per_s
        self._full_at: dict[bool, dict[str, float]] = {False: {}, True: {}}

    def allows(self, device_id: str, now: float, *, late: bool) -> bool:
        """Take a token of the device's, if there is one; `now` is the time of receipt."""
        cost_s, fills_in_s = self._late if late else self._live
        buckets = self._full_at[late]
        full_at = buckets.get(device_id, now)
        if not now <= full_at <= now + fills_in_s:  # full, or the clock was set back
            full_at = now
        full_at += cost_s
        if full_at > now + fills_in_s:
            return False
        buckets[device_id] = full_at
        return True
