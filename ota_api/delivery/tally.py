"""What downloads from the folder store have come to in this process.

Counted in plain numbers and read when metrics are collected: an instrument takes longer for a count
than sending a block does.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

FINISHED: Final = "finished"
ABORTED: Final = "aborted"
"""The client went before the end."""
CUT: Final = "cut"
"""The client was too slow."""
FAILED: Final = "failed"
"""The store, or a stop of the server, ended it."""


@dataclass
class Tally:
    """Of all apps of the process, since it began."""

    active: int = 0
    sent_bytes: int = 0
    ended: Counter[str] = field(default_factory=Counter)


TALLY: Final = Tally()


def _active(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(TALLY.active)]


def _sent_bytes(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(TALLY.sent_bytes)]


def _ended(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(number, {"outcome": outcome}) for outcome, number in TALLY.ended.items()]


_meter = metrics.get_meter(__name__)
_meter.create_observable_gauge(
    "zenthos.ota.downloads_active",
    [_active],
    description="Downloads from the folder store under way.",
)
_meter.create_observable_counter(
    "zenthos.ota.download_bytes", [_sent_bytes], unit="By", description="Bytes of binaries sent."
)
_meter.create_observable_counter(
    "zenthos.ota.downloads_ended",
    [_ended],
    description="Downloads from the folder store, by outcome.",
)
