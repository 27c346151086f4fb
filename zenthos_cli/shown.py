"""How things of the OTA server are shown: tables, or JSON where asked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Token = Annotated[str | None, typer.Option(help="In the place of ZENTHOS_TOKEN.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str = "none"
) -> None:
    """A table, or a line where there are no rows; the first column, which names the thing for other
    commands, is whole however narrow the terminal is."""
    table = Table(*heads, box=None)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(cell, row))
    if table.row_count:
        Console(highlight=False, markup=False).print(table)
    else:
        typer.echo(nothing)


def show_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line for each field that has a value."""
    table = Table(show_header=False, box=None)
    for name, value in fields.items():
        if value not in (None, [], {}):
            table.add_row(name, cell(value))
    Console(highlight=False, markup=False).print(table)


def show_json(value: Any) -> None:
    """As the server has sent it."""
    typer.echo(json.dumps(value, indent=2))


def cell(value: object) -> str:
    """A value in a table: no nulls, times to the second in UTC."""
    if value is None:
        return ""
    if isinstance(value, str):
        return moment(value) or value
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {cell(part)}" for name, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def moment(text: str) -> str | None:
    """`2026-11-28 12:00:00 UTC` of a time as JSON has it; None for any other text."""
    if len(text) < len("2026-11-28T12:00:00Z") or text[10:11] != "T":
        return None
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return None
