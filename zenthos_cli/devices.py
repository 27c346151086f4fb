"""`zenthos device`: the registry, by the OTA server's HTTP API."""

import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from zenthos_cli.shown import AsJson, Token, show_fields, show_json, show_table
from zenthos_core.errors import ZenthosError

app = typer.Typer(help="Devices of the OTA server.", no_args_is_help=True)


def _finite(number: float | None) -> float | None:
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter("it takes a number")
    return number


DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="Its id.")]
Place = Annotated[
    str | None, typer.Option("--at", metavar="LAT,LON", help="Where it is, in degrees.")
]

Interval = Annotated[
    float | None,
    typer.Option("--interval", callback=_finite, help="Seconds between its reports."),
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]
LISTED = ("device", "model", "status", "firmware", "model version", "last seen", "battery", "tags")

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
STEP = ("at", "state", "stage", "reason")


@app.command()
def register(
    device_id: Annotated[str | None, typer.Argument(metavar="DEVICE")] = None,
    *,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All devices of this file instead.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Such as esp32-s3.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Such as soil_sensor.")] = None,
    farm: Annotated[str | None, typer.Option(help="Name of its farm; made where new.")] = None,
    at: Place = None,
    interval: Interval = None,
    tags: Tags = None,
    factory_secret: Annotated[
        bool, typer.Option("--factory-secret-stdin", help="Read it from standard input.")
    ] = False,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Register a device and print its token, or all devices of a CSV, line by line."""
    from zenthos_cli.api import open_api

    if csv is not None:
        if factory_secret:
            raise typer.BadParameter("a CSV has factory secrets as a column")
        _register_csv(csv, token, as_json=as_json)
        return
    if not (device_id and model and type_ and farm):
        raise typer.BadParameter("say DEVICE, --model, --type and --farm; or --csv FILE")
    body = {
        "device_id": device_id,
        "device_model": model,
        "device_type": type_,
        "farm_name": farm,
        "location": _location(at) if at else None,
        "report_interval_s": interval,
        "tags": tags or [],
        "factory_secret": sys.stdin.readline().strip() if factory_secret else None,
    }
    given = {name: value for name, value in body.items() if value is not None}
    registered = open_api(token).post("/devices/register", given)
    show_json(registered) if as_json else show_fields(registered)


@app.command("list")
def list_(
    *,
    farm: Annotated[str | None, typer.Option(help="Id of a farm.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    model: Annotated[str | None, typer.Option(help="Such as esp32-s3.")] = None,
    status: Annotated[str | None, typer.Option(help="online, offline or maintenance.")] = None,
    version: Annotated[str | None, typer.Option(help="With this firmware.")] = None,
    near: Annotated[
        str | None, typer.Option(metavar="LAT,LON,KM", help="Within so many km of a point.")
    ] = None,
    decommissioned: Annotated[bool, typer.Option(help="Those alone.")] = False,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show devices: all in use, or those that all options hold for."""
    from zenthos_cli.api import open_api

    names = ("near_lat", "near_lon", "radius_km")
    query: dict[str, Any] = {
        "farm_id": farm,
        "tag": tag,
        "device_model": model,
        "status": status,
        "firmware_version": version,
        "decommissioned": decommissioned,
        **(dict(zip(names, _numbers(near, "--near", 3), strict=True)) if near else {}),
    }
    found = list(open_api(token).items("/devices", **query))
    if as_json:
        show_json(found)
        return
    keys = ("device_id", "device_model", "status", "firmware_version", "model_version")
    rows = (
        [*map(device.get, keys), *map(device.get, ("last_seen", "battery_voltage", "tags"))]
        for device in found
    )
    show_table(LISTED, rows, nothing="no such devices")


@app.command()
def show(device_id: DeviceId, token: Token = None, as_json: AsJson = False) -> None:
    """Show a device and its current state."""
    from zenthos_cli.api import open_api

    device = open_api(token).get(f"/devices/{device_id}/status")
    show_json(device) if as_json else show_fields(device)


@app.command()
def history(
    device_id: DeviceId,
    *,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=TIMES, help="UTC; a day ago by default.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=TIMES, help="UTC; now by default.")
    ] = None,
    resolution: Annotated[str, typer.Option(help="raw, hourly, daily or auto.")] = "auto",
    fields: Annotated[
        str | None, typer.Option(help="Sensors, with commas; all by default.")
    ] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show what a device has reported: readings, or their statistics; the oldest first."""
    from zenthos_cli.api import open_api

    query = {
        "start": first and first.replace(tzinfo=UTC).isoformat(),
        "end": last and last.replace(tzinfo=UTC).isoformat(),
        "resolution": resolution,
        "fields": fields,
    }
    api, path = open_api(token), f"/devices/{device_id}/history"
    page = api.get(path, **query)
    points = page["items"]
    while page["next"] is not None:
        query |= {"start": page["start"], "end": page["end"], "after": page["next"]}
        page = api.get(path, **query)
        points += page["items"]
    if as_json:
        show_json(points)
        return
    names = list(dict.fromkeys(name for point in points for name in point["values"]))
    rows = ([point["time"], point["plane"], *map(point["values"].get, names)] for point in points)
    show_table(("time", "from", *names), rows, nothing="nothing in that time")


@app.command()
def deployments(device_id: DeviceId, token: Token = None, as_json: AsJson = False) -> None:
    """Show what a device was offered and what became of it, step by step; the newest first."""
    from zenthos_cli.api import open_api

    found = list(open_api(token).items(f"/devices/{device_id}/deployments"))
    if as_json:
        show_json(found)
        return
    heads = ("deployment", "release", "at", "state", "stage", "reason")
    rows = (
        [deployment["id"], f"{deployment['name']} {deployment['version']}", *map(event.get, STEP)]
        for deployment in found
        for event in reversed(deployment["events"])
    )
    show_table(heads, rows, nothing="it was offered nothing yet")


@app.command()
def update(
    device_id: DeviceId,
    *,
    farm: Annotated[str | None, typer.Option(help="Id of the farm that it is moved to.")] = None,
    at: Place = None,
    interval: Interval = None,
    tags: Tags = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all its tags.")] = False,
    token: Token = None,
) -> None:
    """Change a device's farm, place, interval or tags; what is not said stays."""
    from zenthos_cli.api import open_api

    changes: dict[str, Any] = {
        "farm_id": farm,
        "location": _location(at) if at else None,
        "report_interval_s": interval,
        "tags": [] if no_tags else tags,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter("say what to change: --farm, --at, --interval, --tag, --no-tags")
    show_fields(open_api(token).patch(f"/devices/{device_id}", given))


@app.command()
def revoke(device_id: DeviceId, token: Token = None) -> None:
    """Void every token of a device; `device token` gives it another."""
    from zenthos_cli.api import open_api

    open_api(token).post(f"/devices/{device_id}/revoke")
    typer.echo(f"revoked: no token of {device_id} holds any more")


@app.command()
def decommission(
    device_id: DeviceId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    token: Token = None,
) -> None:
    """Take a device out of use for good; its history stays, its id is never used again."""
    from zenthos_cli.api import open_api

    if not yes:
        typer.confirm(f"take {device_id} out of use for good?", abort=True)
    open_api(token).post(f"/devices/{device_id}/decommission")
    typer.echo(f"decommissioned {device_id}")


@app.command("token")
def token_(device_id: DeviceId, token: Token = None) -> None:
    """Print a new token of a device; its earlier ones are void."""
    from zenthos_cli.api import open_api

    api = open_api(token)
    device = api.get(f"/devices/{device_id}/status")
    same = ("device_id", "device_model", "device_type", "farm_id")
    more = ("location", "report_interval_s", "tags")
    body = {name: device[name] for name in (*same, *more) if device[name] is not None}
    typer.echo(api.post("/devices/register", body)["jwt_token"])


def _register_csv(path: Path, token: str | None, *, as_json: bool) -> None:
    """Exit code 1 where a line was refused."""
    from zenthos_cli.api import open_api

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ZenthosError(f"{path}: {error.strerror}") from None
    result = open_api(token).upload("/devices/bulk", content, "text/csv")
    if as_json:
        show_json(result)
    else:
        heads = ("line", "device", "outcome", "detail", "token")
        keys = ("line", "device_id", "outcome", "detail", "jwt_token")
        show_table(heads, ([*map(row.get, keys)] for row in result["rows"]))
        counts = (f"{result[word]} {word}" for word in ("created", "unchanged", "refused"))
        typer.echo(", ".join(counts))
    if result["refused"]:
        raise typer.Exit(1)


def _location(text: str) -> dict[str, float]:
    lat, lon = _numbers(text, "--at", 2)
    return {"lat": lat, "lon": lon}


def _numbers(text: str, option: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"{option} takes {count} numbers with commas between")
    return numbers
