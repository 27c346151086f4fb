"""What a simulation and a replay have in common: register, connect, send, count."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from zenthos_cli.fleet.messages import Device, as_registered, status
from zenthos_cli.fleet.pacing import stop_on_signals
from zenthos_cli.fleet.publisher import Publisher, connected
from zenthos_cli.fleet.registration import NewDevice, Registered, register_fleet
from zenthos_cli.fleet.session import Broker, Credentials
from zenthos_cli.fleet.summary import Summary
from zenthos_core.errors import ConfigurationError
from zenthos_core.mqtt import Message
from zenthos_core.settings import Settings

Send = Callable[[Publisher, asyncio.Event], Awaitable[Summary]]


async def register(
    settings: Settings, farm: Mapping[str, object], devices: Sequence[NewDevice], console: Console
) -> Registered:
    """Register with the stack that the settings name."""
    token = settings.admin_token.get_secret_value()
    if not token:
        raise ConfigurationError(
            "ZENTHOS_ADMIN_TOKEN is not set: start the stack with `zenthos up`, which makes one"
        )
    with console.status(f"registering {len(devices):,} devices"):
        return await register_fleet(settings.ota_url, token, farm, devices, settings.home / "fleet")


async def send_fleet(
    address: str,
    fleet: Registered,
    devices: Sequence[Device],
    salt: str,
    send: Send,
    *,
    speaking: Callable[[Device], Device] = as_registered,
) -> Summary:
    """Connect all devices, let `send` publish, and complete its summary.

    `speaking` gives a device as it is at that moment.
    """
    host, port = _host_and_port(address)
    by_id = {device.device_id: device for device in devices}

    def say(device_id: str, state: str) -> Message:
        return status(speaking(by_id[device_id]), state, now=time.time(), salt=salt)

    accounts = [Credentials(device_id, fleet.tokens[device_id]) for device_id in by_id]
    begun = time.monotonic()
    with stop_on_signals() as stop:
        async with connected(Broker(host, port), accounts, say, random.Random()) as publisher:
            summary = await send(publisher, stop)
            summary.interrupted = stop.is_set()
    summary.farm_id = fleet.farm_id
    summary.resent = publisher.counters.resent
    summary.status_sent = publisher.counters.acknowledged - summary.telemetry_sent
    summary.seconds = time.monotonic() - begun
    return summary


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"ZENTHOS_MQTT_PUBLIC_ADDRESS={address}: write host:port")
    return host, int(port)


@contextmanager
def progress_bar(
    console: Console, total: int | None, label: str
) -> Iterator[Callable[[int], None]]:
    """A bar on the console; the function it gives is told how many readings are made."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    begun = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, rate=0.0)

        def made(count: int) -> None:
            rate = count / max(time.monotonic() - begun, 1e-3)
            progress.update(task, completed=count, rate=rate)

        yield made
