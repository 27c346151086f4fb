"""`zenthos errors`: messages that the lineage could not use, sent again or set aside."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from zenthos_core.errors import ZenthosError
from zenthos_core.etl_errors import State

if TYPE_CHECKING:
    import psycopg

app = typer.Typer(help="Archived messages that the lineage could not use.", no_args_is_help=True)

Numbers = Annotated[list[int], typer.Argument(help="As `zenthos errors list` shows them.")]
SHOWN_BYTES = 80


@app.command("list")
def list_(
    state: Annotated[State, typer.Option(help="Those in this state.")] = State.OPEN,
    every: Annotated[bool, typer.Option("--all", help="In whichever state.")] = False,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Of this day alone.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The latest so many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """Show messages, the latest first; open ones unless asked otherwise."""
    import msgspec

    from zenthos_core.etl_errors import list_errors

    wanted = None if every else state
    with _database() as connection:
        found = list_errors(connection, state=wanted, day=day and day.date(), limit=limit)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    if not found:
        typer.echo("no such messages")
        return
    table = Table("number", "day", "device", "reason", "times", "state", "payload", box=None)
    for error in found:
        text = error.payload[:SHOWN_BYTES].decode(errors="backslashreplace")
        cells = error.device_id or "", error.reason, f"{error.occurrences}", error.state, text
        table.add_row(str(error.id), str(error.day), *cells)
    Console(highlight=False, markup=False).print(table)


@app.command()
def replay(
    numbers: Numbers,
    payload: Annotated[
        Path | None, typer.Option(help="Send what this file holds instead: the message, mended.")
    ] = None,
) -> None:
    """Publish messages again, through the broker like all others."""
    from zenthos_cli.resend import publish
    from zenthos_core.etl_errors import find_errors, set_state
    from zenthos_core.mqtt import Message
    from zenthos_core.settings import load_settings

    if payload is not None and len(numbers) != 1:
        raise typer.BadParameter("--payload goes with a single number")
    with _database() as connection:
        found = find_errors(connection, numbers)
        for error in found:
            content = error.payload if payload is None else _read(payload)
            publish(load_settings(), [Message(error.topic, content)])
            set_state(connection, [error.id], State.REPLAYED)
    typer.echo(f"replayed {len(found)}: `zenthos ledger` shows what becomes of them")


@app.command()
def dismiss(numbers: Numbers) -> None:
    """Set messages aside for good; they stay in the archive, and here with `--all`."""
    from zenthos_core.etl_errors import find_errors, set_state

    with _database() as connection:
        found = find_errors(connection, numbers)
        set_state(connection, [error.id for error in found], State.DISMISSED)
    typer.echo(f"dismissed {len(found)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ZenthosError(f"{path}: {error.strerror}") from None


@contextmanager
def _database() -> Iterator["psycopg.Connection"]:
    """The operational database; one that cannot be reached is an error that says so."""
    import psycopg

    from zenthos_core.database import connect
    from zenthos_core.settings import load_settings

    url = load_settings().database_url.get_secret_value()
    try:
        with connect(url, application="errors", autocommit=True) as connection:
            yield connection
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ZenthosError(f"the operational database fails: {reason}") from None
