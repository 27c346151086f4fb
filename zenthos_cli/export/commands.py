"""`zenthos export` and `zenthos token`."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from zenthos_core.errors import ZenthosError
from zenthos_core.tokens import Role

if TYPE_CHECKING:
    from zenthos_cli.export.client import ExportClient, Request

DAY: Final = ["%Y-%m-%d"]
BRONZE: Final = "bronze/"
SCOPES: Final = {
    Role.VIEWER: ["read"],
    Role.OPERATOR: ["read", "publish"],
    Role.ADMIN: ["read", "publish", "rollback"],
}


class Format(StrEnum):
    """What the file is to be."""

    PARQUET = "parquet"
    CSV = "csv"
    TAR = "tar"


class UserRole(StrEnum):
    """Roles of people; a device gets its token when it is registered."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def export(
    table: Annotated[str | None, typer.Argument(help="Such as gold/telemetry_daily.")] = None,
    *,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="First UTC day.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="Last UTC day, included.")
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="By the name of FILE, or parquet, where not said."),
    ] = None,
    devices: Annotated[
        list[str] | None, typer.Option("--device", help="Of this device alone; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; - is standard output.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the tables there are.")] = False,
    token: Annotated[
        str | None, typer.Option(help="In the place of ZENTHOS_TOKEN; a viewer's will do.")
    ] = None,
) -> None:
    """Write a table, or some days and devices of it, to one Parquet or CSV file."""
    from zenthos_cli.api import own_token
    from zenthos_cli.export.client import ExportClient, Request
    from zenthos_core.settings import load_settings

    settings = load_settings()
    client = ExportClient(settings.ota_url, token or own_token(settings))
    if show_list:
        _show_tables(client)
        return
    if table is None or out is None:
        raise typer.BadParameter("name a TABLE and where to put it (--out FILE), or say --list")
    request = Request(
        table,
        format_ or _format_of(out),
        first and first.date(),
        last and last.date(),
        devices or (),
    )
    if request.format == Format.PARQUET and str(out) == "-" and sys.stdout.isatty():
        raise typer.BadParameter("a terminal cannot show Parquet: say --format csv, or --out FILE")
    _write(client, request, out)


def token(
    name: Annotated[str, typer.Argument(help="Whom it is for; requests are logged under it.")],
    role: Annotated[UserRole, typer.Option(help="What it allows.")] = UserRole.VIEWER,
    days: Annotated[int, typer.Option(min=1, max=365, help="Days until it expires.")] = 30,
) -> None:
    """Print a token for the OTA server, signed with this stack's key."""
    from zenthos_core import tokens
    from zenthos_core.settings import load_settings

    private = tokens.read_pem(load_settings().token_private_key_file)
    chosen = Role(role)
    valid_s = days * 24 * 3600
    typer.echo(
        tokens.issue(private, name, chosen, now=time.time(), valid_s=valid_s, scopes=SCOPES[chosen])
    )


def _format_of(out: Path) -> Format:
    suffix = out.suffix.removeprefix(".")
    return Format(suffix) if suffix in list(Format) else Format.PARQUET


def _show_tables(client: "ExportClient") -> None:
    shown = Table("table", "what", "--from, --to", "--format", box=None)
    for item in client.tables():
        formats = ["parquet", "tar"] if item["name"].startswith(BRONZE) else item["formats"]
        shown.add_row(item["name"], item["what"], item["range_of"] or "-", ", ".join(formats))
    Console(highlight=False).print(shown)


def _write(client: "ExportClient", request: "Request", out: Path) -> None:
    from zenthos_cli.export.client import whole_file

    decoded = request.table.startswith(BRONZE) and request.format != Format.TAR
    if decoded and request.format == Format.CSV:
        raise ZenthosError("bronze holds the bytes that arrived, which CSV cannot: take parquet")
    asked = replace(request, format=Format.TAR, devices=()) if decoded else request
    console = Console(stderr=True, highlight=False)
    with whole_file(out) as file, client.stream(asked) as stream:
        chunks = _counted(stream, console, request.table)
        if decoded:
            from zenthos_cli.export.bronze import write_rows

            write_rows(chunks, file, request.devices)
        else:
            for chunk in chunks:
                file.write(chunk)
    if str(out) != "-":
        console.print(f"wrote {decimal(out.stat().st_size)} to {out}", soft_wrap=True)


def _counted(chunks: Iterator[bytes], console: Console, title: str) -> Iterator[bytes]:
    """The chunks, with a line on the terminal that says how much has come."""
    columns = TextColumn(title), DownloadColumn(), TransferSpeedColumn()
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task("", total=None)
        for chunk in chunks:
            progress.advance(task, len(chunk))
            yield chunk
