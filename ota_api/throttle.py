"""Failed attempts are few, for each key: an account, a device, an address.

1. After `most` failures within a window, the key is refused until the window has passed.
2. An attempt counts when it begins, so that many at once are not let through; one that succeeds
   is given back.
3. Memory is bounded: beyond MAX_KEYS, what was counted longest ago is forgotten.
4. A clock that is set back begins a new window rather than one that lasts for days.

Counted in this process: each of several workers counts for itself.
"""

import math
from dataclasses import dataclass, field
from typing import Final

from zenthos_core.errors import ThrottledError

MAX_KEYS: Final = 100_000


@dataclass
class Throttle:
    """`most` failures in `window_s` seconds; times are epoch seconds."""

    what: str
    """Such as `logins`; told to who is refused."""
    most: int
    window_s: float
    _windows: dict[str, tuple[float, int]] = field(default_factory=dict)

    def begin(self, key: str, now: float) -> None:
        """Count an attempt; ThrottledError by rule 1."""
        began, count = self._windows.pop(key, (now, 0))
        if not 0 <= now - began < self.window_s:
            began, count = now, 0
        refused = count >= self.most
        self._windows[key] = (began, count if refused else count + 1)
        if len(self._windows) > MAX_KEYS:
            del self._windows[next(iter(self._windows))]
        if refused:
            left_s = math.ceil(began + self.window_s - now)
            raise ThrottledError(f"too many failed {self.what}", max(1, left_s))

    def succeed(self, key: str) -> None:
        """Give back the attempt that has just succeeded."""
        began, count = self._windows.get(key, (0.0, 0))
        if count > 1:
            self._windows[key] = (began, count - 1)
        else:
            self._windows.pop(key, None)
