"""`zenthos user`: who may log in. It works on the database itself, so that it needs no server."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from zenthos_core.errors import InvalidInputError, ZenthosError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from ota_api.audit.service import AuditTrail

app = typer.Typer(help="Users of the OTA server.", no_args_is_help=True)

PAGE = 500
Name = Annotated[str, typer.Argument(help="Of the user.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Result = TypeVar("Result")


@app.command()
def create(
    name: Name,
    role: Annotated[
        Literal["admin", "operator", "viewer"], typer.Option(help="What the user may do.")
    ] = "viewer",
    from_stdin: FromStdin = False,
) -> None:
    """Create a user; asks for the password."""
    from ota_api.users.repository import UserRepository
    from ota_api.users.service import create_user

    password = _read_password(from_stdin)
    _on_database(lambda c: create_user(UserRepository(c), _trail(c), name, role, password))
    typer.echo(f"created {name} ({role})")


@app.command("list")
def show() -> None:
    """Show all users."""
    from ota_api.users.repository import UserRepository
    from ota_api.users.schemas import User

    async def read(connection: "AsyncConnection") -> list[User]:
        users, found = UserRepository(connection), list[User]()
        while page := await users.page(found[-1].name if found else "", PAGE):
            found += page
        return found

    table = Table("user", "role", "created", "disabled", box=None)
    for user in _on_database(read):
        moments = user.created_at, user.disabled_at
        shown = (f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "" for moment in moments)
        table.add_row(user.name, user.role, *shown)
    no_users = "no users: `zenthos user create NAME --role admin` makes the first"
    Console(highlight=False).print(table if table.row_count else no_users)


@app.command()
def disable(name: Name) -> None:
    """Disable a user for good; sessions end at once."""
    from ota_api.sessions.repository import SessionRepository
    from ota_api.users.repository import UserRepository
    from ota_api.users.service import disable_user

    changed = _on_database(
        lambda c: disable_user(UserRepository(c), SessionRepository(c), _trail(c), name)
    )
    typer.echo(f"disabled {name}" if changed else f"{name} was disabled already")


@app.command()
def password(name: Name, from_stdin: FromStdin = False) -> None:
    """Give a user another password; sessions end at once."""
    from ota_api.sessions.repository import SessionRepository
    from ota_api.users.repository import UserRepository
    from ota_api.users.service import change_password

    chosen = _read_password(from_stdin)
    _on_database(
        lambda c: change_password(UserRepository(c), SessionRepository(c), _trail(c), name, chosen)
    )
    typer.echo(f"changed the password of {name}")


@app.command()
def role(
    name: Name,
    to: Annotated[
        Literal["admin", "operator", "viewer"], typer.Argument(help="What the user may do then.")
    ],
) -> None:
    """Give a user another role; sessions end at once."""
    from ota_api.sessions.repository import SessionRepository
    from ota_api.users.repository import UserRepository
    from ota_api.users.service import change_role

    changed = _on_database(
        lambda c: change_role(UserRepository(c), SessionRepository(c), _trail(c), name, to)
    )
    typer.echo(f"{name} is {to} now" if changed else f"{name} was {to} already")


def _read_password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInputError("no terminal to ask for the password: use --password-stdin")
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))


def _trail(connection: "AsyncConnection") -> "AuditTrail":
    from ota_api.audit.repository import AuditRepository
    from ota_api.audit.service import SYSTEM_ROLE, Actor, AuditTrail

    return AuditTrail(AuditRepository(connection), Actor(f"cli:{getpass.getuser()}", SYSTEM_ROLE))


def _on_database(act: Callable[["AsyncConnection"], Awaitable[Result]]) -> Result:
    """One transaction on the operational database."""
    import psycopg

    from zenthos_core.database import connect_async
    from zenthos_core.settings import load_settings

    async def run() -> Result:
        url = load_settings().database_url.get_secret_value()
        connection = await connect_async(url, application="user")
        async with connection, connection.transaction():
            return await act(connection)

    try:
        return asyncio.run(run())
    except psycopg.errors.UndefinedTable:
        raise ZenthosError("the database is not migrated: `zenthos up` does it") from None
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ZenthosError(f"the operational database fails (is it up?): {reason}") from None
