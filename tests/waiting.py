"""Waiting for what others bring about."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0


def wait_until(holds: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Until it holds; the test fails where it does not in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
