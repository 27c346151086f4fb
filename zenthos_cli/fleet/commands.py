"""`zenthos simulate` and `zenthos replay`: options in, a summary out."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from zenthos_cli.fleet.summary import Summary

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
JSON_HELP = "Print the summary as JSON, on one line."


def simulate(
    *,
    devices: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 10,
    days: Annotated[float, typer.Option(min=0, max=3650, help="Days of history to send.")] = 0.0,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds between readings.")] = 900,
    live: Annotated[bool, typer.Option("--live", help="Go on in real time, until Ctrl-C.")] = False,
    duration: Annotated[
        float, typer.Option(min=0, help="Go on in real time for so many seconds.")
    ] = 0.0,
    until: Annotated[
        datetime | None, typer.Option(formats=DATES, help="End of the history, UTC; default now.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same farm.")] = 0,
    farm: Annotated[str, typer.Option(help="Name of the farm; device ids follow it.")] = (
        "Demo Farm"
    ),
    device_model: Annotated[str, typer.Option(help="Device model.")] = "esp32-s3",
    speed: Annotated[str, typer.Option(help="Speed of the history: a factor, or max.")] = "max",
    outages_per_day: Annotated[
        float, typer.Option(min=0, help="Outages of a device a day; it buffers and catches up.")
    ] = 0.05,
    outage_hours: Annotated[float, typer.Option(min=0.01, help="Mean length of an outage.")] = 4.0,
    duplicate_rate: Annotated[float, typer.Option(min=0, max=1, help="Share sent twice.")] = 0.005,
    out_of_order_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share sent after the next.")
    ] = 0.005,
    clock_error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share with a clock not yet set.")
    ] = 0.0,
    malformed_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Malformed messages a reading.")
    ] = 0.0,
    update_every: Annotated[
        float,
        typer.Option(min=0, help="Seconds between a device's questions for updates; 0: none."),
    ] = 0.0,
    fail_updates_at: Annotated[
        str | None, typer.Option(help="Every update fails there: download, install or reboot.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Stream a simulated farm: its history as fast as the broker takes it, then live."""
    from zenthos_cli.fleet import jobs
    from zenthos_cli.fleet.faults import FaultRates
    from zenthos_cli.fleet.pacing import parse_speed
    from zenthos_cli.updating import updates_fail_at
    from zenthos_core.settings import load_settings

    faults = FaultRates(
        outages_per_day=outages_per_day,
        outage_mean_h=outage_hours,
        duplicate=duplicate_rate,
        out_of_order=out_of_order_rate,
        clock_error=clock_error_rate,
        malformed=malformed_rate,
    )
    options = jobs.SimulateOptions(
        devices=devices,
        days=days,
        interval_s=interval,
        live=live,
        duration_s=duration,
        seed=seed,
        farm=farm,
        device_model=device_model,
        speed=parse_speed(speed),
        until=jobs.utc(until),
        faults=faults,
        update_every_s=update_every,
        update_faults=updates_fail_at(fail_updates_at),
    )
    _report(jobs.simulate(load_settings(), options, Console(stderr=True)), as_json=as_json)


def replay(
    *,
    inputs: Annotated[list[Path], typer.Argument(help="Files, or folders with such files.")],
    mapping: Annotated[Path, typer.Option(help="How columns become readings (TOML).")],
    speed: Annotated[str, typer.Option(help="Speed against event time: a factor, or max.")] = "max",
    shift_to_now: Annotated[
        bool, typer.Option("--shift-to-now", help="Move event time so that it ends now.")
    ] = False,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DATES, help="First event time, UTC.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DATES, help="Event time to stop before, UTC.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Stream recorded measurements (CSV, CSV.gz, Parquet) as if their devices sent them."""
    from zenthos_cli.fleet import jobs
    from zenthos_cli.fleet.pacing import parse_speed
    from zenthos_core.settings import load_settings

    options = jobs.ReplayOptions(
        inputs=tuple(inputs),
        mapping=mapping,
        speed=parse_speed(speed),
        shift_to_now=shift_to_now,
        first=jobs.utc(first),
        last=jobs.utc(last),
    )
    _report(jobs.replay(load_settings(), options, Console(stderr=True)), as_json=as_json)


def _report(summary: "Summary", *, as_json: bool) -> None:
    typer.echo(summary.as_json() if as_json else summary.as_text())
