"""The two jobs of the fleet, from settings and options to a summary."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from rich.console import Console

from zenthos_cli.fleet import replay as replays
from zenthos_cli.fleet import simulate as simulations
from zenthos_cli.fleet.farm import Irrigation
from zenthos_cli.fleet.faults import FaultRates
from zenthos_cli.fleet.irrigation import insert_irrigation
from zenthos_cli.fleet.mapping import LoadedMapping, load_mapping
from zenthos_cli.fleet.messages import Device, as_registered
from zenthos_cli.fleet.publisher import Publisher, allow_connections
from zenthos_cli.fleet.recordings import Recording, read_recordings
from zenthos_cli.fleet.registration import NewDevice
from zenthos_cli.fleet.run import progress_bar, register, send_fleet
from zenthos_cli.fleet.summary import Summary
from zenthos_cli.fleet.updates import FleetUpdates, make_updates
from zenthos_cli.fleet.weather import Climate
from zenthos_cli.updating import Faults
from zenthos_core.database import connect
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings

DAY_S = 86_400


@dataclass(frozen=True)
class SimulateOptions:
    """What `zenthos simulate` is told."""

    devices: int = 10
    days: float = 0.0
    interval_s: int = 900
    live: bool = False
    duration_s: float = 0.0
    seed: int = 0
    farm: str = "Demo Farm"
    device_model: str = "esp32-s3"
    speed: float | None = None
    until: datetime | None = None
    faults: FaultRates = field(default_factory=FaultRates)
    update_every_s: float = 0.0
    """0: the devices ask for no updates."""
    update_faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True)
class ReplayOptions:
    """What `zenthos replay` is told."""

    inputs: tuple[Path, ...]
    mapping: Path
    speed: float | None = None
    shift_to_now: bool = False
    first: datetime | None = None
    last: datetime | None = None


def plan_simulation(options: SimulateOptions, now: float) -> simulations.Plan:
    """The times and devices of a simulation that begins at `now`.

    Raises:
        ConfigurationError: where the options ask for nothing.
    """
    live_s = float("inf") if options.live and not options.duration_s else options.duration_s
    if not options.days and not live_s:
        raise ConfigurationError("nothing to simulate: give --days, --live or --duration")
    if options.until is not None and live_s:
        raise ConfigurationError("--until is for a history alone: live readings are of now")
    end = options.until.timestamp() if options.until is not None else now
    until = int(end // options.interval_s) * options.interval_s
    steps = int(options.days * DAY_S // options.interval_s)
    return simulations.Plan(
        devices=tuple(
            Device(device_id, options.device_model, simulations.FIRMWARE_VERSION)
            for device_id in simulations.device_ids(options.farm, options.devices)
        ),
        start=until - steps * options.interval_s,
        until=until,
        interval_s=options.interval_s,
        live_until=max(until, now + live_s) if live_s else until,
        speed=options.speed,
        seed=options.seed,
        faults=options.faults,
    )


def simulate(settings: Settings, options: SimulateOptions, console: Console) -> Summary:
    """Register a simulated farm and stream it; returns once the broker has everything."""
    return asyncio.run(_simulate(settings, options, console))


async def _simulate(settings: Settings, options: SimulateOptions, console: Console) -> Summary:
    plan = plan_simulation(options, time.time())
    allow_connections(len(plan.devices))
    climate = Climate()
    place = {"lat": climate.latitude, "lon": climate.longitude}
    new = [
        NewDevice(d.device_id, d.device_model, "soil-station", climate.latitude, climate.longitude)
        for d in plan.devices
    ]
    fleet = await register(settings, {"name": options.farm, "location": place}, new, console)
    with (
        _operational_database(settings) as connection,
        progress_bar(console, plan.expected, "simulating") as progress,
    ):

        async def record(events: list[Irrigation]) -> None:
            await asyncio.to_thread(insert_irrigation, connection, fleet.farm_id, events)

        by_id = {device.device_id: device for device in plan.devices}
        updates = (
            make_updates(
                settings, by_id, fleet.tokens, options.update_every_s, options.update_faults
            )
            if options.update_every_s
            else None
        )
        speaking = as_registered if updates is None else updates.speaking

        async def send(publisher: Publisher, stop: asyncio.Event) -> Summary:
            simulation = simulations.Simulation(
                plan, publisher, record, progress, stop, speaking=speaking
            )
            async with _running(updates):
                return await simulation.run()

        summary = await send_fleet(
            settings.mqtt_public_address, fleet, plan.devices, plan.salt, send, speaking=speaking
        )
    if updates is not None:
        summary.updates = dict(updates.outcomes)
    return summary


@asynccontextmanager
async def _running(updates: FleetUpdates | None) -> AsyncIterator[None]:
    """The devices ask for updates until the end."""
    if updates is None:
        yield
        return
    task = asyncio.create_task(updates.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()  # raises what ended it


def _operational_database(settings: Settings) -> psycopg.Connection:
    try:
        return connect(
            settings.database_url.get_secret_value(), application="fleet", autocommit=True
        )
    except psycopg.OperationalError as error:
        raise ConfigurationError(
            f"cannot reach the operational database: {error}; start the stack with `zenthos up`"
        ) from None


def plan_replay(options: ReplayOptions, mapping: LoadedMapping, now: float) -> replays.Plan:
    """Read the recordings and decide when each reading was."""
    recordings: Sequence[Recording] = replays.between(
        read_recordings(mapping, options.inputs), options.first, options.last
    )
    if options.shift_to_now:
        recordings = replays.shifted_to(recordings, now)
    rules = mapping.rules
    return replays.Plan(
        devices=tuple(
            Device(recording.device_id, rules.device_model, rules.firmware_version)
            for recording in recordings
        ),
        recordings=tuple(recordings),
        salt=mapping.salt,
        speed=options.speed,
    )


def replay(settings: Settings, options: ReplayOptions, console: Console) -> Summary:
    """Register the recorded devices and stream what they measured."""
    return asyncio.run(_replay(settings, options, console))


async def _replay(settings: Settings, options: ReplayOptions, console: Console) -> Summary:
    mapping = load_mapping(options.mapping)
    with console.status("reading the recordings"):
        plan = plan_replay(options, mapping, time.time())
    allow_connections(len(plan.devices))
    rules = mapping.rules
    new = [
        NewDevice(r.device_id, rules.device_model, rules.device_type, *(r.place or (None, None)))
        for r in plan.recordings
    ]
    fleet = await register(settings, {"name": rules.farm}, new, console)
    with progress_bar(console, plan.expected, "replaying") as progress:

        async def send(publisher: Publisher, stop: asyncio.Event) -> Summary:
            return await replays.replay(plan, publisher, progress, stop)

        return await send_fleet(settings.mqtt_public_address, fleet, plan.devices, plan.salt, send)


def utc(moment: datetime | None) -> datetime | None:
    """A time without a zone is UTC."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
