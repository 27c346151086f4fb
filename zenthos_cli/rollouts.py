"""`zenthos rollout`: who is offered a release, how far it is, and how to stop it."""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from zenthos_cli.shown import AsJson, Token, cell, show_fields, show_json, show_table
from zenthos_core.errors import ConflictError, InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from zenthos_cli.api import Api

app = typer.Typer(help="Rollouts: a release reaches devices in phases.", no_args_is_help=True)

RolloutId = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Its id.")]
Reason = Annotated[str, typer.Option(help="Why; it is in the audit log.")]
EXIT_CODES: Final = {"finished": 0, "paused": 3, "aborted": 4}
"""Of `watch`, by the state that it ends in."""

LISTED: Final = ("rollout", "release", "model", "state", "phase", "created", "by")
STATES: Final = (
    *("pending", "downloading", "installing", "rebooting"),
    *("success", "already-installed", "failure", "timed_out", "aborted"),
)
BAR_WIDTH: Final = 40
PATIENCE_S: Final = 300.0
"""How long `watch` waits for a server that has answered before."""
VERSION: Final = re.compile(r"v\d|m-\d")
"""How a version begins, and no id does."""


@app.command()
def create(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="Id, or version with --model.")],
    *,
    model: Annotated[
        str | None, typer.Option(help="Device model; needed where the release is for several.")
    ] = None,
    phases: Annotated[str, typer.Option(help="Percentages, rising.")] = "1,10,50,100",
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
    hold: Annotated[bool, typer.Option("--hold", help="Leave it to `start` to begin.")] = False,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Offer a release to devices, phase by phase."""
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
        "start": not hold,
    }
    made = api.post("/rollouts", {name: value for name, value in body.items() if value is not None})
    _show(made, as_json)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Those in this state alone.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this device model alone.")] = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Show rollouts, the newest first."""
    from zenthos_cli.api import open_api

    found = list(open_api(token).items("/rollouts", state=state, device_model=model))
    if as_json:
        show_json(found)
        return
    show_table(LISTED, map(_row, found), nothing="no rollouts: `zenthos rollout create` makes one")


@app.command()
def show(rollout: RolloutId, token: Token = None, as_json: AsJson = False) -> None:
    """Show a rollout, how far it is, how devices failed, and what was decided."""
    from zenthos_cli.api import open_api

    api = open_api(token)
    found = api.get(f"/rollouts/{rollout}")
    events = list(api.items(f"/rollouts/{rollout}/events"))
    if as_json:
        show_json({**found, "events": events})
        return
    numbers = ("states", "failures", "evaluation")
    show_fields({name: value for name, value in found.items() if name not in numbers})
    Console(highlight=False, markup=False).print("", picture(found, []))
    if found["failures"]:
        rows = ([f["devices"], f["stage"], f["reason"]] for f in found["failures"])
        show_table(("failed", "stage", "reason"), rows)
    show_table(("at", "by", "what", "why"), map(_event, reversed(events)))


@app.command()
def watch(
    rollout: RolloutId,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    token: Token = None,
) -> None:
    """Show how far a rollout is until it ends; exit code 0 finished, 3 paused, 4 aborted."""
    from zenthos_cli.api import open_api

    console = Console(highlight=False, markup=False)
    last: tuple[str, RenderableType] = ("", "")
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        for last in _looks(open_api(token), rollout, every):
            live.update(last[1], refresh=console.is_terminal)
    if not console.is_terminal:
        console.print(last[1])
    raise typer.Exit(EXIT_CODES[last[0]])


@app.command()
def start(rollout: RolloutId, token: Token = None) -> None:
    """Begin with the first phase."""
    _act(rollout, "start", None, token)


@app.command()
def pause(rollout: RolloutId, reason: Reason = "", token: Token = None) -> None:
    """Offer it to no further device; those in the midst of it go on."""
    _act(rollout, "pause", {"reason": reason}, token)


@app.command()
def resume(rollout: RolloutId, token: Token = None) -> None:
    """Go on; what failed so far is not counted again."""
    _act(rollout, "resume", None, token)


@app.command()
def abort(rollout: RolloutId, reason: Reason = "", token: Token = None) -> None:
    """End it for good; devices that have the release keep it."""
    _act(rollout, "abort", {"reason": reason}, token)


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


def find_release(api: "Api", named: str, device_model: str | None) -> str:
    """The id of a release; of those with that version (for the model), the newest that counts.

    Raises:
        NotFoundError: where there is none.
        ConflictError: where all there are have been withdrawn.
        InvalidInputError: where several have that version that do not replace each other.
    """
    if VERSION.match(named) is None:
        return named
    published = [
        release
        for release in api.items("/releases", device_model=device_model, version=named)
        if release["version"] == named
    ]
    found = [release for release in published if not release["withdrawn_at"]]
    whose = f" for {device_model}" if device_model else ""
    if published and not found:
        raise ConflictError(f"release {named}{whose} is withdrawn: publish another, or reissue it")
    if not found:
        raise NotFoundError(f"no release {named}{whose}: `zenthos release list` shows them")
    if len({_slot(release, device_model) for release in found}) > 1:
        each = ", ".join(
            f"{release['id']} ({release['name']} for {' '.join(release['device_models'])})"
            for release in found
        )
        raise InvalidInputError(f"{named} is several releases: name one by its id: {each}")
    newest = max(found, key=lambda release: int(release["release_counter"]))
    return str(newest["id"])


def _slot(release: dict[str, Any], device_model: str | None) -> tuple[str, ...]:
    """Counters of releases compare within a device model, and a model's within its name too."""
    name = release["name"] if release["kind"] == "model" else ""
    return (name, *((device_model,) if device_model else release["device_models"]))


def picture(rollout: dict[str, Any], events: list[dict[str, Any]]) -> RenderableType:
    """Phases, devices by state, why it waits, and the last decision."""
    phases = Table("phase", "devices", "", box=None)
    for number, percentage in enumerate(rollout["phases"], start=1):
        place = number - rollout["phase"] - (rollout["state"] == "finished")
        mark = rollout["state"] if place == 0 else "done" if place < 0 else ""
        phases.add_row(str(number), f"{percentage:g} %", mark)
    counts = rollout["states"]
    total = max(1, sum(counts.values()))
    states = Table("state", "devices", "", box=None)
    for state in (*(s for s in STATES if s in counts), *(counts.keys() - set(STATES))):
        bar = "█" * max(1, BAR_WIDTH * counts[state] // total)
        states.add_row(state, f"{counts[state]:,}", bar)
    members = f"{rollout['members']:,} devices in this phase, {rollout['answering']:,} answer"
    last = " ".join(_event(events[0])) if events else ""
    return Group(phases, "", members, states, "", *_waiting(rollout), last)


def _waiting(rollout: dict[str, Any]) -> list[str]:
    """What the last evaluation of one that runs waits for."""
    last = rollout["evaluation"]
    if rollout["state"] != "running" or last is None or last["action"] != "hold":
        return []
    return [f"waits ({cell(last['at'])}): " + "; ".join(r["text"] for r in last["reasons"])]


def _event(event: dict[str, Any]) -> list[str]:
    """When, who, what and why."""
    after = event["after"] or {}
    reasons = [reason["text"] for reason in after.get("reasons", [])]
    why = "; ".join(reasons) or str(after.get("reason", ""))
    return [cell(event["at"]), event["actor"], event["action"].removeprefix("rollout."), why]


def _looks(api: "Api", rollout: str, every: float) -> Iterator[tuple[str, RenderableType]]:
    """State and picture, until it ends; a server that is away for a while is waited for."""
    from zenthos_cli.api import AwayError

    seen_at = float("-inf")  # one that never answers is told of at once
    while True:
        try:
            found = api.get(f"/rollouts/{rollout}")
            events = api.get(f"/rollouts/{rollout}/events", limit=1)["items"]
        except AwayError:
            if time.monotonic() > seen_at + PATIENCE_S:
                raise
            time.sleep(every)
            continue
        seen_at = time.monotonic()
        title = f"{found['name']} {found['version']} on {found['device_model']}: {found['state']}"
        yield found["state"], Group(title, "", picture(found, events))
        if found["state"] in EXIT_CODES:
            return
        time.sleep(every)


def _act(rollout: str, verb: str, body: dict[str, str] | None, token: str | None) -> None:
    from zenthos_cli.api import open_api

    changed = open_api(token).post(f"/rollouts/{rollout}/{verb}", body)
    typer.echo(f"rollout {changed['id']} is {changed['state']}")


def _show(rollout: dict[str, Any], as_json: bool) -> None:
    show_json(rollout) if as_json else show_fields(rollout)


def _row(rollout: dict[str, Any]) -> list[object]:
    phases = rollout["phases"]
    at = f"{rollout['phase']} of {len(phases)}, {phases[rollout['phase'] - 1]:g} %"
    release = f"{rollout['name']} {rollout['version']}"
    names = ("created_at", "created_by")
    head = [rollout["id"], release, rollout["device_model"], rollout["state"], at]
    return [*head, *map(rollout.get, names)]


def _percentages(text: str) -> list[float]:
    try:
        return [float(part.rstrip("% ")) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter("--phases takes percentages, such as 1,10,50,100") from None
