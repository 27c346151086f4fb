"""`zenthos ledger`: what became of every message, by day."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def ledger(
    days: Annotated[int, typer.Option(min=1, help="How many days back, today included.")] = 7,
    device: Annotated[str | None, typer.Option(help="Of this device alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what became of every message, by UTC day of receipt."""
    from dataclasses import asdict

    import msgspec
    import psycopg

    from zenthos_core.database import connect
    from zenthos_core.errors import ZenthosError
    from zenthos_core.ledger import OUTCOMES, read_days
    from zenthos_core.settings import load_settings

    url = load_settings().database_url.get_secret_value()
    since = (datetime.now(UTC) - timedelta(days=days - 1)).date()
    try:
        with connect(url, application="ledger", autocommit=True) as connection:
            found = read_days(connection, since=since, device_id=device)
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise ZenthosError(f"the operational database fails (is the stack up?): {reason}") from None
    if as_json:
        lines = [{"day": day, "received": of.received} | asdict(of) for day, of in found]
        typer.echo(msgspec.json.encode(lines))
        return
    table = Table("day", "received", *OUTCOMES)
    for column in table.columns[1:]:
        column.justify = "right"
    for day, of in found:
        table.add_row(str(day), *(f"{n:,}" for n in (of.received, *asdict(of).values())))
    Console(highlight=False).print(table if found else f"no messages since {since}")
