"""`zenthos forwarders`: how far they are, and taking one out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from zenthos_core.errors import ZenthosError

if TYPE_CHECKING:
    import psycopg

app = typer.Typer(help="Forwarders of ingest, to RabbitMQ and Redis.")


@app.callback(invoke_without_command=True)
def states(context: typer.Context) -> None:
    """Show how far each forwarder is; `remove` takes one out."""
    if context.invoked_subcommand is not None:
        return
    from ingest.forward.admin import forwarder_states

    with _database() as connection:
        found = forwarder_states(connection)
    if not found:
        typer.echo("no forwarder has started: set ZENTHOS_FORWARD_AMQP_URL or …_REDIS_URL")
        return
    table = Table("forwarder", "forwarded", "waiting", "lag", "last moved", box=None)
    for state in found:
        moved = f"{state.updated_at:%Y-%m-%d %H:%M:%S} UTC"
        counts = f"{state.forwarded:,}", f"{state.waiting:,}", f"{state.lag_s:,.0f} s"
        table.add_row(state.name, *counts, moved)
    Console(highlight=False).print(table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Such as rabbitmq or redis.")],
) -> None:
    """Forget a forwarder for good, and what is kept for it alone."""
    from ingest.forward.admin import remove_forwarder

    with _database() as connection:
        remove_forwarder(connection, name)
    typer.echo(f"removed {name}; what waited for it alone will not be forwarded")


@contextmanager
def _database() -> Iterator["psycopg.Connection"]:
    """The operational database; one that cannot be reached is an error that says so."""
    import psycopg

    from zenthos_core.database import connect
    from zenthos_core.settings import load_settings

    url = load_settings().database_url.get_secret_value()
    try:
        with connect(url, application="forwarders", autocommit=True) as connection:
            yield connection
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ZenthosError(f"the operational database fails: {reason}") from None
