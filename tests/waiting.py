"""Waiting for what others bring about, and for a new hour or day."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0
HOUR_S = 3600
DAY_S = 86_400
ROOM_S = 90.0
"""That a test needs before an hour or a day ends."""


def wait_until(holds: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Until it holds; the test fails where it does not in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def begin_within(period_s: int) -> None:
    """Wait where an hour or a day (UTC) is about to end, so that it does not in a test."""
    left_s = period_s - time.time() % period_s
    if left_s < ROOM_S:
        time.sleep(left_s + 0.1)
