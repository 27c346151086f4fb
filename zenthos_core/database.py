"""Postgres: connections and migrations. Each database has one Alembic history of plain SQL."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg.abc import PQGen

MIGRATIONS = Path(__file__).with_name("migrations")
CONNECT_TIMEOUT_S = 10
SERVER_KEEPALIVES = (
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)


class Database(StrEnum):
    """Our databases, each with its own migration history."""

    OPS = "ops"
    ANALYTICS = "analytics"


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """One that is closed where the server has not answered in time.

    TCP notices a peer that is gone only where nobody in between, such as a proxy, plays its part.
    """

    answer_within_s: float | None = None
    on_silence: Callable[[int], None] | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg.Connection.wait; psycopg.OperationalError when the time is over."""
        try:
            return super().wait(gen, interval, self.answer_within_s if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as error:
            backend_pid = self.pgconn.backend_pid
            self.pgconn.finish()
            if self.on_silence:
                self.on_silence(backend_pid)
            raise psycopg.OperationalError(
                f"the database did not answer within {self.answer_within_s:g} s"
            ) from error


def connect(
    url: str,
    *,
    application: str,
    autocommit: bool = False,
    answer_within_s: float | None = None,
    on_silence: Callable[[int], None] | None = None,
) -> psycopg.Connection:
    """Open a connection in UTC; psycopg.OperationalError where the server cannot be reached.

    With `answer_within_s`, no statement may take longer, and the server gives up on us, too;
    `on_silence` is told the server process of a connection that was closed for it.
    """
    parameters = _parameters(application)
    if answer_within_s is not None:
        bound_ms = round(1e3 * answer_within_s)
        parameters["options"] += (
            f" -c statement_timeout={bound_ms} -c idle_in_transaction_session_timeout={bound_ms}"
            # In the midst of a COPY the server heeds neither: it asks whether the peer is there.
            + SERVER_KEEPALIVES
        )
    connection = BoundedConnection.connect(url, autocommit=autocommit, **parameters)
    connection.answer_within_s, connection.on_silence = answer_within_s, on_silence
    return connection


async def connect_async(url: str, *, application: str) -> psycopg.AsyncConnection:
    """As `connect`, in autocommit. The server, too, notices within half a minute when we are gone:
    what the session holds, such as an advisory lock, is then free for others."""
    parameters = _parameters(application)
    parameters["options"] += SERVER_KEEPALIVES
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
