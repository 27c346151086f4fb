"""What forwarders count; docs/reference/metrics.md says what each means."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation


class Health(NamedTuple):
    """What is to be observed of a forwarder that has its name's lock."""

    up: bool
    lag_s: float


class ForwardMetrics:
    """One forwarder's instruments; `health` returns None while another worker forwards."""

    def __init__(self, name: str, health: Callable[[], Health | None]) -> None:
        meter = metrics.get_meter(__name__)
        self._labels = {"forwarder": name}
        self._health = health
        self._forwarded = meter.create_counter(
            "zenthos.middleware.forwarded",
            description="Messages that the other side has confirmed.",
        )
        self._skipped = meter.create_counter(
            "zenthos.middleware.forward_skipped",
            description="Rows of the outbox that are no device messages.",
        )
        meter.create_observable_gauge(
            "zenthos.middleware.forward_lag_s",
            [self._observe_lag],
            description="Age of the oldest message that waits to be forwarded, in s.",
        )
        meter.create_observable_gauge(
            "zenthos.middleware.forward_up",
            [self._observe_up],
            description="Whether the other side takes messages.",
        )

    def moved(self, forwarded: int, skipped: int) -> None:
        """Count a batch that the cursor has passed."""
        self._forwarded.add(forwarded, self._labels)
        if skipped:
            self._skipped.add(skipped, self._labels)

    def _observe_lag(self, _: CallbackOptions) -> Iterable[Observation]:
        health = self._health()
        return [Observation(health.lag_s, self._labels)] if health else []

    def _observe_up(self, _: CallbackOptions) -> Iterable[Observation]:
        health = self._health()
        return [Observation(int(health.up), self._labels)] if health else []
