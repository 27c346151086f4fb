"""Recorded measurements, sent to the broker as if by the devices that made them."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import polars as pl

from zenthos_cli.fleet.columns import TIME
from zenthos_cli.fleet.messages import Device, Sample, telemetry
from zenthos_cli.fleet.pacing import Pace
from zenthos_cli.fleet.publisher import Publisher
from zenthos_cli.fleet.recordings import Recording
from zenthos_cli.fleet.simulate import Progress
from zenthos_cli.fleet.summary import Summary
from zenthos_core.errors import ConfigurationError

HOUR_S: Final = 3600
SLICE_ROWS: Final = 2_000


@dataclass(frozen=True)
class Plan:
    """What to replay."""

    devices: tuple[Device, ...]
    recordings: tuple[Recording, ...]
    salt: str
    speed: float | None = None

    @property
    def expected(self) -> int:
        """Readings in all recordings."""
        return sum(recording.table.height for recording in self.recordings)


def between(
    recordings: Iterable[Recording], first: datetime | None, last: datetime | None
) -> list[Recording]:
    """Readings with `first` <= time < `last`; devices without any are left out.

    Raises:
        ConfigurationError: where nothing is left.
    """
    kept = []
    for recording in recordings:
        table = recording.table
        if first is not None:
            table = table.filter(pl.col(TIME) >= first.timestamp())
        if last is not None:
            table = table.filter(pl.col(TIME) < last.timestamp())
        if table.height:
            kept.append(replace(recording, table=table))
    if not kept:
        raise ConfigurationError("no readings in the files and the time given: nothing to replay")
    return kept


def shifted_to(recordings: Sequence[Recording], now: float) -> list[Recording]:
    """The same readings moved by whole hours, the last one in the hour that ends `now`."""
    last = max(recording.table[TIME][-1] for recording in recordings)
    shift = int((now - last) // HOUR_S) * HOUR_S
    return [
        replace(recording, table=recording.table.with_columns(pl.col(TIME) + shift))
        for recording in recordings
    ]


def samples(table: pl.DataFrame) -> Iterator[Sample]:
    """Readings in order of time; a missing value is left out."""
    names = table.columns[1:]
    for part in table.iter_slices(SLICE_ROWS):
        for when, *values in part.iter_rows():
            present = {n: v for n, v in zip(names, values, strict=True) if v is not None}
            yield Sample(when, present)


async def replay(
    plan: Plan, publisher: Publisher, progress: Progress, stop: asyncio.Event
) -> Summary:
    """Send all recordings, each on its device's connection, and count what was acknowledged."""
    summary = Summary(plan.devices[0].device_model, [d.device_id for d in plan.devices])
    first = min(int(recording.table[TIME][0]) for recording in plan.recordings)
    pace = Pace(plan.speed, first, stop)

    async def send(device: Device, recording: Recording) -> None:
        previous = None
        for sample in samples(recording.table):
            if not await pace.reach(sample.time):
                return
            message = telemetry(device, sample, salt=plan.salt, backlog=True)
            await publisher.publish(device.device_id, message)
            if sample.time == previous:
                summary.duplicates_sent += 1
            else:
                summary.distinct += 1
            previous = sample.time
            summary.saw(sample.time)
            if not summary.telemetry_sent % 200:
                progress(summary.telemetry_sent)

    try:
        async with asyncio.TaskGroup() as group:
            for device, recording in zip(plan.devices, plan.recordings, strict=True):
                group.create_task(send(device, recording))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    await publisher.drain()
    progress(summary.telemetry_sent)
    return summary
