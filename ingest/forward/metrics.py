"""What forwarders count; docs/reference/metrics.md says what each means."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation


class Health(NamedTuple):
    """What is to be observed of a forwarder."""

    up: bool
    lag_s: float


class ForwardMetrics:
    """The instruments of all forwarders of a process: a gauge is asked through one object only."""

    def __init__(self) -> None:
        meter = metrics.get_meter(__name__)
        self._watched: dict[str, Callable[[], Health | None]] = {}
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
            description="1 while it forwards, 0 in an outage.",
        )

    def watch(self, name: str, health: Callable[[], Health | None]) -> None:
        """Observe a forwarder; `health` returns None while another worker forwards."""
        self._watched[name] = health

    def moved(self, name: str, forwarded: int, skipped: int) -> None:
        """Count a batch that the cursor has passed."""
        self._forwarded.add(forwarded, {"forwarder": name})
        if skipped:
            self._skipped.add(skipped, {"forwarder": name})

    def _observe_lag(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(health.lag_s, {"forwarder": name}) for name, health in self._healths()]

    def _observe_up(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(int(health.up), {"forwarder": name}) for name, health in self._healths()
        ]

    def _healths(self) -> list[tuple[str, Health]]:
        answers = [(name, health()) for name, health in self._watched.items()]
        return [(name, health) for name, health in answers if health is not None]
