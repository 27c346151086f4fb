"""Trying again while something is away: capped, with jitter, and over at once when we stop."""

from collections.abc import Callable
from threading import Event
from typing import Final, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_never,
    stop_when_event_set,
    wait_random_exponential,
)

FIRST_S: Final = 0.2
LONGEST_S: Final = 5.0
WAIT: Final = wait_random_exponential(multiplier=FIRST_S, max=LONGEST_S)

T = TypeVar("T")


class Patience:
    """How long to go on trying: until `stopping` is set, or `at_most_s` have passed."""

    def __init__(self, stopping: Event, at_most_s: float | None = None) -> None:
        self._stopping = stopping
        self._stop = stop_when_event_set(stopping) | (
            stop_never if at_most_s is None else stop_after_delay(at_most_s)
        )

    def call(
        self,
        action: Callable[[], T],
        *,
        again: Callable[[BaseException], bool],
        on_failure: Callable[[BaseException, float], None],
    ) -> T:
        """What the action returns in the end.

        `again` says whether an error is worth another try; `on_failure` is told of each such
        error and of the seconds until the next try, 0 for the second one. The last error is raised.
        """
        try:
            return action()  # nearly always; what retries hold on to is freed late
        except Exception as error:
            if self._stopping.is_set() or not again(error):
                raise
            on_failure(error, 0.0)

        def report(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if error is not None:
                on_failure(error, state.upcoming_sleep)

        retrying = Retrying(
            retry=retry_if_exception(again),
            stop=self._stop,
            wait=WAIT,
            sleep=sleep_using_event(self._stopping),
            before_sleep=report,
            reraise=True,
        )
        return retrying(action)
