"""Which devices a rollout offers its release to.

1. A device has a bucket in each rollout, 0 to 9,999: the first 8 bytes of
   sha256(rollout id + device id), big-endian, mod 10,000. It never changes, so a device that is in
   stays in when the percentage is raised, and each rollout begins with other devices.
2. A phase of p % holds the buckets below 100 p.
3. Buckets from 10,000 - 100 c on are the control cohort of c %: they wait until the rollout is
   finished, in which the last phase's percentage holds for all.
4. A rollout is for the devices of its model, and of its farm and tag where it has them.

The database has rule 1 as `rollout_bucket` (migration 0005).
"""

import hashlib
from typing import Final
from uuid import UUID

BUCKETS: Final = 10_000


def bucket_of(rollout_id: UUID, device_id: str) -> int:
    """Rule 1."""
    digest = hashlib.sha256(f"{rollout_id}{device_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def is_in(bucket: int, percentage: float, control_percentage: float, *, finished: bool) -> bool:
    """Rules 2 and 3; `percentage` is that of the phase."""
    control_from = BUCKETS if finished else BUCKETS - round(control_percentage * 100)
    return bucket < min(round(percentage * 100), control_from)
