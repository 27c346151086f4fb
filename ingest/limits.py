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
        self._live, self._late = _Meter(live), _Meter(late)

    def allows(self, device_id: str, received_at: float, *, late: bool) -> bool:
        """Take a token of the device's, if there is one."""
        return (self._late if late else self._live).take(device_id, received_at)


class _Meter:
    def __init__(self, bucket: Bucket) -> None:
        self._cost_s = 1 / bucket.per_s
        self._fills_in_s = bucket.burst * self._cost_s
        self._full_at: dict[str, float] = {}

    def take(self, device_id: str, now: float) -> bool:
        full_at = self._full_at.get(device_id, now)
        if not now <= full_at <= now + self._fills_in_s:  # full, or the clock was set back
            full_at = now
        full_at += self._cost_s
        if full_at > now + self._fills_in_s:
            return False
        self._full_at[device_id] = full_at
        return True
