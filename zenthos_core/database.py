"""Postgres: connections and migrations. Each database has one Alembic history of plain SQL."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
CONNECT_TIMEOUT_S = 10


class Database(StrEnum):
    """Our databases, each with its own migration history."""

    OPS = "ops"
    ANALYTICS = "analytics"


def connect(url: str, *, application: str, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection in UTC; psycopg.OperationalError where the server cannot be reached."""
    return psycopg.connect(url, autocommit=autocommit, **_parameters(application))


async def connect_async(url: str, *, application: str) -> psycopg.AsyncConnection:
    """As `connect`, in autocommit. The server, too, notices within half a minute when we are gone:
    what the session holds, such as an advisory lock, is then free for others."""
    parameters = _parameters(application)
    parameters["options"] += (
        " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    )
    return await psycopg.AsyncConnection.connect(url, autocommit=True, **parameters)


def _parameters(application: str) -> dict[str, Any]:
    return {
        "application_name": f"zenthos-{application}",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": "-c timezone=UTC",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def migrate(url: str, database: Database, revision: str = "head") -> None:
    """Bring a database to a revision; safe to run from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / database))
    config.attributes["url"] = url
    command.upgrade(config, revision)
