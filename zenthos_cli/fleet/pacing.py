"""When a reading is due on the wall clock, and how a run is asked to stop."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zenthos_core.errors import ConfigurationError


class Pace:
    """Event time runs `speed` times as fast as the clock; None means as fast as possible."""

    def __init__(
        self,
        speed: float | None,
        first_event: float,
        stop: asyncio.Event,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._speed = speed
        self._first_event = first_event
        self._stop = stop
        self._clock = clock
        self._begun = clock()

    async def reach(self, event_time: float) -> bool:
        """Wait until `event_time` is due; False where the run is to stop."""
        if self._speed is not None:
            due = self._begun + (event_time - self._first_event) / self._speed
            while not self._stop.is_set() and (left_s := due - self._clock()) > 0:
                await _wait(self._stop, left_s)
        return not self._stop.is_set()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


def parse_speed(text: str) -> float | None:
    """`max`, or a factor such as `60` or `60x`.

    Raises:
        ConfigurationError: for anything else.
    """
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigurationError(f"--speed {text}: give a factor above 0, such as 60, or max")
    return speed


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a run ends whole; a second Ctrl-C kills it."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def ask() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, ask)
    loop.add_signal_handler(signal.SIGTERM, ask)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
