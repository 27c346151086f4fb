"""The `zenthos` command. Each command imports what it needs when it runs, so that help is quick."""

import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from rich.console import Console
from typer.core import TyperGroup

from zenthos_cli import bench_commands, devices, errors, forwarders, rollouts, users
from zenthos_cli.export.commands import export, token
from zenthos_cli.fleet.commands import replay, simulate
from zenthos_cli.ledger import ledger
from zenthos_core import __version__
from zenthos_core.errors import ZenthosError

if TYPE_CHECKING:
    from zenthos_core.settings import Settings

INTERRUPTED_EXIT_CODE = 130
"""128 + SIGINT, as shells report it."""

STAYS_UP = "the stack stays up; `make dev-down` stops it"


def bypass_proxies(environment: MutableMapping[str, str]) -> None:
    """Let this machine's own addresses be reached without the proxy that may be set for others."""
    for name in ("no_proxy", "NO_PROXY"):
        kept = [environment[name]] if environment.get(name) else []
        environment[name] = ",".join([*kept, "127.0.0.1", "localhost"])


class ReportingGroup(TyperGroup):
    """Commands whose expected errors are one message in red, with no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit code 1 for an error that we foresaw, 130 for Ctrl-C."""
        bypass_proxies(os.environ)
        logging.getLogger("psycopg").setLevel(logging.ERROR)  # its warnings repeat our errors
        try:
            return super().invoke(ctx)
        except ZenthosError as error:
            Console(stderr=True).print(
                str(error), style="red", markup=False, highlight=False, soft_wrap=True
            )
            sys.exit(1)
        except KeyboardInterrupt:
            Console(stderr=True).print("interrupted", style="yellow")
            sys.exit(INTERRUPTED_EXIT_CODE)


app = typer.Typer(
    name="zenthos",
    cls=ReportingGroup,
    help="Farm sensor fleets, from the first reading to a signed model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def up() -> None:
    """Start the embedded stack and return once every service is ready."""
    start_stack()


def start_stack() -> bool:
    """Start it and print where to look; False if it ran already."""
    from zenthos_cli.stack.control import Stack
    from zenthos_cli.stack.display import LiveDisplay, status_table

    console = Console(highlight=False)
    stack = Stack(Path.cwd())
    with LiveDisplay(console) as display:
        started = stack.up(display)
    status = stack.status()
    if status is not None:
        console.print(status_table(status))
    console.print("\nthe stack is ready" if started else "\nthe stack runs already")
    print_addresses(console, stack.settings())
    console.print(f"  {'logs':<8} {stack.files().logs}", soft_wrap=True)
    return started


def print_addresses(console: Console, settings: "Settings") -> None:
    """Where a person looks."""
    from zenthos_cli.stack.control import urls

    for name, url in urls(settings).items():
        console.print(f"  {name:<8} {url}")


@app.command()
def down() -> None:
    """Stop the embedded stack; what it has stored stays."""
    from zenthos_cli.stack.control import Stack
    from zenthos_cli.stack.display import LiveDisplay

    console = Console(highlight=False)
    stack = Stack(Path.cwd())
    with LiveDisplay(console, stack.status()) as display:
        stopped = stack.down(display)
    console.print(f"stopped {len(stopped)} services" if stopped else "nothing was running")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show the services of the stack; exit code 1 unless all are ready."""
    import msgspec

    from zenthos_cli.stack.control import Stack
    from zenthos_cli.stack.display import status_table

    current = Stack(Path.cwd()).status()
    if as_json:
        typer.echo(msgspec.json.encode(current))
    elif current is None:
        typer.echo("the stack is not running: start it with `make dev-up`")
    else:
        Console(highlight=False).print(status_table(current))
        settings = Stack(Path.cwd()).settings()
        if settings.mqtt_host == "127.0.0.1" and settings.mqtt_revocations_file is None:
            typer.echo("the broker does not check device tokens: `zenthos up` says what is missing")
    if current is None or not current.ready():
        raise typer.Exit(1)


@app.command()
def demo(
    devices: Annotated[int, typer.Option(min=10, help="Simulated devices.")] = 20,
    days: Annotated[
        int, typer.Option(min=180, help="Days of their history; few may not do for a model.")
    ] = 365,
    recordings: Annotated[
        list[Path] | None,
        typer.Option("--replay", help="Replay these files or folders instead; with --mapping."),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="How columns of the recordings become readings (TOML).")
    ] = None,
) -> None:
    """Run the main job once: fleet, ingest, lineage, model, signed release. The stack stays up."""
    from zenthos_cli import demo as demos
    from zenthos_core.settings import load_settings

    if (recordings is None) != (mapping is None):
        raise typer.BadParameter("--replay and --mapping go together")
    started = start_stack()
    settings, console = load_settings(), Console(highlight=False)
    stream = (
        demos.simulated_fleet(settings, console, devices, days)
        if recordings is None or mapping is None
        else demos.recorded_fleet(settings, console, recordings, mapping)
    )
    try:
        summary = demos.run_demo(settings, stream, console)
        demos.write_summary(summary, settings.home / "demo.json")
    except KeyboardInterrupt:
        if started:
            down()
        else:
            console.print(STAYS_UP)
        raise
    except ZenthosError as error:
        raise ZenthosError(f"{error}\n{STAYS_UP}") from None
    console.print()
    console.print(demos.summary_table(summary))
    console.print("\nto look at, until `make dev-down`")
    print_addresses(console, settings)
    if summary.lost:
        raise typer.Exit(1)


app.command()(simulate)
app.command()(replay)
app.command()(ledger)
app.command()(export)
app.command()(token)
app.add_typer(bench_commands.app, name="bench")
app.add_typer(devices.app, name="device")
app.add_typer(errors.app, name="errors")
app.add_typer(forwarders.app, name="forwarders")
app.add_typer(rollouts.app, name="rollout")
app.add_typer(users.app, name="user")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
