"""Who may download now, and how fast.

1. So many downloads run at once, and so many of one device; whoever comes later comes again.
2. A device gets so many bytes a second after a first burst, and so do all together.
3. A client that takes less than the least rate for long is cut: it resumes with `Range`.

Users are bound by what holds for all together. Counted in this process: each of several workers
counts for itself.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ota_api.delivery.blocks import BLOCK_BYTES
from ota_api.delivery.buckets import Bucket, Buckets
from ota_api.delivery.tally import TALLY
from zenthos_core.errors import BusyError, ThrottledError
from zenthos_core.settings import Settings

RETRY_AFTER_S: Final = 5
PIECES_PER_S: Final = 2
"""Of what is held back: neither in jerks nor in crumbs."""
MIN_PIECE_BYTES: Final = 4096


@dataclass(frozen=True)
class Limits:
    """Of rules 1 to 3; 0 is no limit."""

    downloads: int
    device_downloads: int
    device_bytes_per_s: int
    device_burst_bytes: int
    bytes_per_s: int
    min_bytes_per_s: int
    slow_after_s: float

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """As the settings say."""
        return cls(
            downloads=settings.ota_downloads,
            device_downloads=settings.ota_device_downloads,
            device_bytes_per_s=settings.ota_device_bytes_per_s,
            device_burst_bytes=settings.ota_device_burst_bytes,
            bytes_per_s=settings.ota_bytes_per_s,
            min_bytes_per_s=settings.ota_min_bytes_per_s,
            slow_after_s=settings.ota_slow_after_s,
        )


class Admission:
    """Counts downloads and bytes; for one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running = 0
        self._running_of: Counter[str] = Counter()
        rate, device_rate = limits.bytes_per_s, limits.device_bytes_per_s
        self._all = Bucket(rate, max(rate, BLOCK_BYTES)) if rate else None
        self._devices = Buckets(device_rate, limits.device_burst_bytes) if device_rate else None

    @contextmanager
    def admit(self, device: str | None) -> Iterator[None]:
        """Count a download while it runs.

        Raises:
            BusyError, ThrottledError: by rule 1.
        """
        limits = self._limits
        if limits.downloads and self._running >= limits.downloads:
            raise BusyError(f"{self._running} downloads are running: try again in a few seconds")
        if device is not None and limits.device_downloads:
            if self._running_of[device] >= limits.device_downloads:
                raise ThrottledError(
                    f"{device} runs {self._running_of[device]} downloads", RETRY_AFTER_S
                )
            self._running_of[device] += 1
        self._running += 1
        TALLY.active += 1
        try:
            yield
        finally:
            TALLY.active -= 1
            self._running -= 1
            if device is not None and limits.device_downloads:
                self._running_of[device] -= 1
                if not self._running_of[device]:
                    del self._running_of[device]

    def piece_bytes(self, device: str | None) -> int:
        """Most to send at once: what is held back goes in small pieces."""
        own = self._limits.device_bytes_per_s if device is not None else 0
        rates = [rate for rate in (own, self._limits.bytes_per_s) if rate]
        if not rates:
            return BLOCK_BYTES
        return min(BLOCK_BYTES, max(MIN_PIECE_BYTES, min(rates) // PIECES_PER_S))

    async def pace(self, device: str | None, amount: int) -> None:
        """Rule 2: wait until so many bytes may be sent."""
        wait_s = 0.0
        now = asyncio.get_running_loop().time()
        if self._devices is not None and device is not None:
            wait_s = self._devices.take(device, amount, now)
        if self._all is not None:
            wait_s = max(wait_s, self._all.take(amount, now))
        if wait_s:
            await asyncio.sleep(wait_s)

    def patience_s(self, amount: int) -> float | None:
        """Rule 3: how long a client may take for so many bytes."""
        least = self._limits.min_bytes_per_s
        return self._limits.slow_after_s + amount / least if least else None
