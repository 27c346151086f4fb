"""`zenthos rollout`: who is offered a release, how far it is, and how to stop it."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from zenthos_cli.shown import AsJson, Token, cell, show_fields, show_json, show_table
from zenthos_core.errors import NotFoundError

if TYPE_CHECKING:
    from zenthos_cli.api import Api

app = typer.Typer(help="Rollouts: a release reaches devices in phases.", no_args_is_help=True)

RolloutId = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Its id.")]
Reason = Annotated[str | None, typer.Option(help="Why; it is in the audit log.")]
OPEN: Final = ("created", "running")
EXIT_CODES: Final = {"finished": 0, "paused": 3, "aborted": 4}
"""Of `watch`, by the state that it ends in."""

LISTED: Final = ("rollout", "release", "model", "state", "phase", "created", "by")
STATES: Final = (
    *("pending", "downloading", "installing", "rebooting"),
    *("success", "already-installed", "failure", "timed_out", "aborted"),
)
BAR_WIDTH: Final = 40


@app.command()
def create(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Id, or version with --model.")],
    *,
    model: Annotated[str, typer.Option(help="Device model, such as esp32-s3.")],
    phases: Annotated[str, typer.Option(help="Percentages, rising.")] = "10,50,100",
    farm: Annotated[str | None, typer.Option(help="Id of a farm: its devices alone.")] = None,
    tag: Annotated[str | None, typer.Option(help="Devices with this tag alone.")] = None,
    control: Annotated[
        float | None, typer.Option(help="Percentage that waits until it is finished.")
    ] = None,
    success: Annotated[
        float | None, typer.Option(help="Share of a phase that must succeed.")
    ] = None,
    errors: Annotated[float | None, typer.Option(help="Share that may fail.")] = None,
    min_devices: Annotated[
        int | None, typer.Option(help="Outcomes before a phase is judged.")
    ] = None,
    timeout: Annotated[
        int | None, typer.Option(help="Seconds of silence that are a failure.")
    ] = None,
    start_now: Annotated[bool, typer.Option("--start", help="Start it too.")] = False,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Prepare a rollout of a release; `start` begins it."""
    from zenthos_cli.api import open_api

    api = open_api(token)
    body = {
        "release_id": find_release(api, release, model),
        "device_model": model,
        "phases": _percentages(phases),
        "farm_id": farm,
        "tag": tag,
        "control_percentage": control,
        "success_threshold": success,
        "error_threshold": errors,
        "min_devices": min_devices,
        "timeout_s": timeout,
    }
    made = api.post("/rollouts", {name: value for name, value in body.items() if value is not None})
    if start_now:
        made = api.post(f"/rollouts/{made['id']}/start")
    _show(made, as_json)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Those in this state alone.")] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show rollouts, the newest first."""
    from zenthos_cli.api import open_api

    found = list(open_api(token).items("/rollouts", state=state))
    if as_json:
        show_json(found)
        return
    show_table(LISTED, map(_row, found), nothing="no rollouts: `zenthos rollout create` makes one")


@app.command()
def show(rollout: RolloutId, token: Token = None, as_json: AsJson = False) -> None:
    """Show a rollout, how far it is and what was decided last."""
    from zenthos_cli.api import open_api

    _show(open_api(token).get(f"/rollouts/{rollout}"), as_json)


@app.command()
def watch(
    rollout: RolloutId,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    token: Token = None,
) -> None:
    """Show how far a rollout is until it ends; exit code 0 finished, 3 paused, 4 aborted."""
    from zenthos_cli.api import open_api

    api = open_api(token)
    console = Console(highlight=False)
    found: dict[str, Any] = {}
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        for found in _until_it_ends(api, rollout, every):
            live.update(picture(found), refresh=console.is_terminal)
    if not console.is_terminal:
        console.print(picture(found))
    raise typer.Exit(EXIT_CODES[found["state"]])


@app.command()
def start(rollout: RolloutId, token: Token = None) -> None:
    """Begin with the first phase."""
    _act(rollout, "start", None, token)


@app.command()
def pause(rollout: RolloutId, reason: Reason = None, token: Token = None) -> None:
    """Offer it to no further device; those in the midst of it go on."""
    _act(rollout, "pause", reason, token)


@app.command()
def resume(rollout: RolloutId, reason: Reason = None, token: Token = None) -> None:
    """Go on where it was paused."""
    _act(rollout, "resume", reason, token)


@app.command()
def abort(rollout: RolloutId, reason: Reason = None, token: Token = None) -> None:
    """End it for good; devices that have the release keep it."""
    _act(rollout, "abort", reason, token)


@app.command()
def rollback(
    rollout: RolloutId,
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="A reissue: its id, or its version.")
    ],
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Abort it and bring its devices back by a reissued release, all at once."""
    from zenthos_cli.api import open_api

    api = open_api(token)
    model = api.get(f"/rollouts/{rollout}")["device_model"]
    body = {"release_id": find_release(api, release, model)}
    _show(api.post(f"/rollouts/{rollout}/rollback", body), as_json)


def find_release(api: "Api", named: str, device_model: str) -> str:
    """The id of a release; of those with that version for the model, the newest.

    Raises:
        NotFoundError: where there is none.
    """
    if not named.startswith(("v", "m-")):
        return named
    found = [
        release
        for release in api.items("/releases", device_model=device_model)
        if release["version"] == named
    ]
    if not found:
        raise NotFoundError(f"no release {named} for {device_model}: `zenthos release list`")
    newest = max(found, key=lambda release: int(release["release_counter"]))
    return str(newest["id"])


def picture(rollout: dict[str, Any]) -> RenderableType:
    """A rollout as `watch` shows it: phases, devices by state, the last decision."""
    phases = Table("phase", "devices", "", box=None)
    for number, percentage in enumerate(rollout["phases"], start=1):
        place = number - rollout["phase"] - (rollout["state"] == "finished")
        mark = "now" if place == 0 else "done" if place < 0 else ""
        phases.add_row(str(number), f"{percentage:g} %", mark)
    counts = rollout["counts"]
    total = max(1, sum(counts.get(state, 0) for state in STATES))
    states = Table("state", "devices", "", box=None)
    for state in STATES:
        if count := counts.get(state, 0):
            states.add_row(state, f"{count:,}", "█" * max(1, BAR_WIDTH * count // total))
    head = f"{rollout['id']}: {rollout['state']}"
    return Group(head, "", phases, "", states, "", *_decision(rollout))


def _decision(rollout: dict[str, Any]) -> list[str]:
    if reason := rollout.get("paused_reason"):
        return [f"paused: {reason}"]
    decision = rollout.get("last_decision") or {}
    return [f"{decision['action']}: {'; '.join(decision['reasons'])}"] if decision else []


def _until_it_ends(api: "Api", rollout: str, every: float) -> Iterator[dict[str, Any]]:
    while True:
        found = api.get(f"/rollouts/{rollout}")
        yield found
        if found["state"] in EXIT_CODES:
            return
        time.sleep(every)


def _act(rollout: str, verb: str, reason: str | None, token: str | None) -> None:
    from zenthos_cli.api import open_api

    body = {"reason": reason} if reason else None
    changed = open_api(token).post(f"/rollouts/{rollout}/{verb}", body)
    typer.echo(f"{changed['id']} is {changed['state']}")


def _show(rollout: dict[str, Any], as_json: bool) -> None:
    show_json(rollout) if as_json else show_fields(rollout)


def _row(rollout: dict[str, Any]) -> list[object]:
    phases = rollout["phases"]
    at = f"{rollout['phase']} of {len(phases)}, {phases[rollout['phase'] - 1]:g} %"
    release = rollout.get("version") or rollout["release_id"]
    names = ("created_at", "created_by")
    head = [rollout["id"], release, rollout["device_model"], rollout["state"], at]
    return [*head, *(cell(rollout.get(name)) for name in names)]


def _percentages(text: str) -> list[float]:
    try:
        return [float(part.rstrip("%")) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter("--phases takes percentages, such as 10,50,100") from None
