"""Adding up what both planes say of a farm.

1. Means are weighted: by readings in gold, whose daily means are of plausible values, by plausible
   values in the hot plane.
2. A device counts once, whichever planes it is in.
3. Without any value there is no mean, least or greatest: null, not 0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """A sensor: the weighted sum of its values, their weight, and their extremes."""

    total: float | None = None
    weight: int = 0
    least: float | None = None
    greatest: float | None = None

    @property
    def mean(self) -> float | None:
        """Rules 1 and 3."""
        return self.total / self.weight if self.total is not None and self.weight else None


@dataclass(frozen=True)
class Sums:
    """What one plane, or both, say of some days."""

    readings: int = 0
    devices: frozenset[str] = frozenset()
    soil: Measured = field(default_factory=Measured)
    temperature: Measured = field(default_factory=Measured)
    battery_min: float | None = None


def add(sums: Sequence[Sums]) -> Sums:
    """Rules 1 to 3."""
    return Sums(
        readings=sum(part.readings for part in sums),
        devices=frozenset[str]().union(*(part.devices for part in sums)),
        soil=_add_measured([part.soil for part in sums]),
        temperature=_add_measured([part.temperature for part in sums]),
        battery_min=_most(min, (part.battery_min for part in sums)),
    )


def _add_measured(parts: Sequence[Measured]) -> Measured:
    totals = [part.total for part in parts if part.total is not None]
    return Measured(
        total=sum(totals) if totals else None,
        weight=sum(part.weight for part in parts),
        least=_most(min, (part.least for part in parts)),
        greatest=_most(max, (part.greatest for part in parts)),
    )


def _most(choose: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None
