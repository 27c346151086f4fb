"""A simulated farm, sent to the broker: first its history as fast as possible, then live."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from zenthos_cli.fleet.farm import Farm, Irrigation, Reading
from zenthos_cli.fleet.faults import Emission, FaultRates, FaultyLink, malformed
from zenthos_cli.fleet.messages import Device, Sample, as_registered, telemetry
from zenthos_cli.fleet.pacing import Pace
from zenthos_cli.fleet.publisher import Publisher
from zenthos_cli.fleet.summary import Summary
from zenthos_core.mqtt import Message

FIRMWARE_VERSION: Final = "v0.1.0"


@dataclass(frozen=True)
class Plan:
    """What to simulate. Times are UTC epoch seconds, whole multiples of `interval_s`."""

    devices: tuple[Device, ...]
    start: int
    until: int
    interval_s: int
    live_until: float
    """`until` for a history alone, infinity for a run that lasts until it is stopped."""
    speed: float | None = None
    """Of the history; None is as fast as possible. Live is always in real time."""
    seed: int = 0
    faults: FaultRates = field(default_factory=FaultRates)

    @property
    def salt(self) -> str:
        """The same plan gives the same message ids; another plan gives other ones."""
        return f"simulate:{self.seed}:{self.start}:{self.interval_s}"

    @property
    def expected(self) -> int | None:
        """Readings that the plan makes; None for a run without end."""
        if self.live_until == float("inf"):
            return None
        return len(self.devices) * int((self.live_until - self.start) // self.interval_s)


def device_ids(farm: str, count: int) -> list[str]:
    """`demo-farm-0001` … from a farm's name, within what topics allow of a device id."""
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in farm.lower()).strip("-")
    return [f"{slug[:50].strip('-') or 'farm'}-{number:04d}" for number in range(1, count + 1)]


RecordIrrigation = Callable[[list[Irrigation]], Awaitable[None]]
Progress = Callable[[int], None]


class Simulation:
    """One run of a plan."""

    def __init__(
        self,
        plan: Plan,
        publisher: Publisher,
        record_irrigation: RecordIrrigation,
        progress: Progress,
        stop: asyncio.Event,
        *,
        speaking: Callable[[Device], Device] = as_registered,
    ) -> None:
        """`progress` is told the number of readings made so far; `speaking` gives a device as it
        is at that moment."""
        self._plan = plan
        self._publisher = publisher
        self._record_irrigation = record_irrigation
        self._progress = progress
        self._stop = stop
        self._speaking = speaking
        self._rng = random.Random(plan.seed)
        self._links = [FaultyLink(plan.faults, self._rng) for _ in plan.devices]
        self._made = 0
        self.summary = Summary(plan.devices[0].device_model, [d.device_id for d in plan.devices])

    async def run(self) -> Summary:
        """Send everything, then what outages still hold back, and count it."""
        plan = self._plan
        farm = Farm(
            len(plan.devices), plan.start, plan.interval_s, np.random.default_rng(plan.seed)
        )
        readings = farm.readings()
        pace = Pace(plan.speed, plan.start, self._stop)
        await self._send_until(readings, plan.until, pace, history=True)
        await self._publisher.drain()
        pace = Pace(1, time.time(), self._stop)
        await self._send_until(readings, plan.live_until, pace, history=False)
        for device, link in zip(plan.devices, self._links, strict=True):
            await self._publish(device, link.flush(), history=False)
        await self._publisher.drain()
        return self.summary

    async def _send_until(
        self, readings: Iterator[Reading], until: float, pace: Pace, *, history: bool
    ) -> None:
        """Readings of all steps that end by `until`."""
        plan, irrigations = self._plan, list[Irrigation]()
        begun = plan.start + self._made // len(plan.devices) * plan.interval_s
        try:
            while begun + plan.interval_s <= until:
                reading = next(readings)
                if reading.irrigation is not None:
                    irrigations.append(reading.irrigation)
                if not history:
                    await self._record(irrigations)
                if not await self._send_step(reading, pace, history=history):
                    return
                begun += plan.interval_s
        finally:
            await self._record(irrigations)

    async def _record(self, irrigations: list[Irrigation]) -> None:
        if irrigations:
            await self._record_irrigation(irrigations)
            self.summary.irrigation_events += len(irrigations)
            irrigations.clear()

    async def _send_step(self, reading: Reading, pace: Pace, *, history: bool) -> bool:
        """One reading of each device, spread over the interval; False where the run is to stop."""
        plan = self._plan
        names = [name for name in reading.values if name != "signal_strength"]
        rows = zip(*(reading.values[name].tolist() for name in names), strict=True)
        signals = reading.values["signal_strength"].tolist()
        seq = self._made // len(plan.devices)
        for i, (row, signal) in enumerate(zip(rows, signals, strict=True)):
            when = int(reading.time) + i * plan.interval_s // len(plan.devices)
            if not await pace.reach(when):
                return False
            sample = Sample(when, dict(zip(names, row, strict=True)), seq, signal)
            emissions = self._links[i].pass_on(sample, plan.interval_s)
            await self._publish(plan.devices[i], emissions, history=history)
            self._made += 1
        self._progress(self._made)
        return True

    async def _publish(self, device: Device, emissions: list[Emission], *, history: bool) -> None:
        for emission in emissions:
            message = telemetry(
                self._speaking(device),
                emission.sample,
                salt=self._plan.salt,
                backlog=history or emission.backlog,
                clock=emission.clock,
            )
            for _ in range(emission.copies):
                await self._publisher.publish(device.device_id, message)
            self.summary.distinct += 1
            self.summary.duplicates_sent += emission.copies - 1
            self.summary.saw(emission.sample.time)
            if emission.rubbish:
                payload = malformed(message.payload, self._rng)
                await self._publisher.publish(device.device_id, Message(message.topic, payload))
                self.summary.malformed_sent += 1
