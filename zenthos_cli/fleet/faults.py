"""What goes wrong between a device and the broker: pure, with the random generator handed in.

Nothing is lost by these faults: readings come late, twice, in another order, with a wrong clock,
or followed by rubbish.
"""

import random
from dataclasses import dataclass
from math import exp
from typing import Final, NamedTuple

from zenthos_cli.fleet.messages import Sample

UNSET_CLOCK_S: Final = 946_684_800
"""2000-01-01, where MicroPython's clock starts before the first NTP answer."""


@dataclass(frozen=True)
class FaultRates:
    """How often, per message unless named otherwise."""

    outages_per_day: float = 0.0
    outage_mean_h: float = 4.0
    duplicate: float = 0.0
    out_of_order: float = 0.0
    clock_error: float = 0.0
    malformed: float = 0.0


class Emission(NamedTuple):
    """What leaves the device: a sample, how often, and how its message is off."""

    sample: Sample
    copies: int = 1
    backlog: bool = False
    clock: int | None = None
    rubbish: bool = False
    """A malformed message goes after this one."""


class FaultyLink:
    """The way of one device's readings to the broker."""

    def __init__(self, rates: FaultRates, rng: random.Random) -> None:
        self._rates = rates
        self._rng = rng
        self._silent_until = float("-inf")
        self._buffer: list[Sample] = []
        self._held: Emission | None = None

    def pass_on(self, sample: Sample, step_s: float) -> list[Emission]:
        """What leaves at the time of `sample`, taken `step_s` seconds after the one before."""
        if self._outage(sample.time, step_s):
            self._buffer.append(sample)
            return []
        emission = self._emission(sample)
        late, self._buffer = self._buffer, []
        held, self._held = self._held, None
        if held is None and self._hits(self._rates.out_of_order):
            self._held = emission
            return [self._emission(s, backlog=True) for s in late]
        now = [emission] if held is None else [emission, held]
        return [*(self._emission(s, backlog=True) for s in late), *now]

    def flush(self) -> list[Emission]:
        """What is still on the device when the run ends."""
        rest = [Emission(sample, backlog=True) for sample in self._buffer]
        if self._held is not None:
            rest.append(self._held)
        self._buffer, self._held = [], None
        return rest

    def _outage(self, now: float, step_s: float) -> bool:
        if now < self._silent_until:
            return True
        if not self._hits(1 - exp(-self._rates.outages_per_day * step_s / 86_400)):
            return False
        self._silent_until = now + self._rng.expovariate(1 / (self._rates.outage_mean_h * 3600))
        return True

    def _emission(self, sample: Sample, *, backlog: bool = False) -> Emission:
        wrong_clock = self._hits(self._rates.clock_error)
        return Emission(
            sample,
            copies=2 if self._hits(self._rates.duplicate) else 1,
            backlog=backlog,
            clock=UNSET_CLOCK_S + sample.time % 86_400 if wrong_clock else None,
            rubbish=self._hits(self._rates.malformed),
        )

    def _hits(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability


def malformed(payload: bytes, rng: random.Random) -> bytes:
    """A payload as a faulty firmware sends it; one that every ingest must quarantine."""
    kinds = (
        payload[: len(payload) // 2],
        payload.replace(b'"sensors":{', b'"sensors":{"pressure":"high",'),
        payload.replace(b'"sensors":{', b'"sensors":{"pressure":NaN,'),
        b"\x00\xff" + payload,
    )
    return rng.choice(kinds)
