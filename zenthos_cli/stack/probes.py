"""How to tell that a service is ready. Each answers within seconds and never raises."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Final

import psycopg

TIMEOUT_S: Final = 3.0


def http_ok(url: str) -> Callable[[], bool]:
    """Ready when GET answers 200."""

    def probe() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310
                return bool(response.status == HTTPStatus.OK)
        except OSError:  # refused, reset, timed out, or a status of 400 and above
            return False

    return probe


def port_open(port: int) -> Callable[[], bool]:
    """Ready when something accepts connections."""

    def probe() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S).close()
        except OSError:
            return False
        return True

    return probe


class DaemonHeartbeat:
    """Dagster's daemon listens on no port; it is ready once it writes a heartbeat of its own."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._before: datetime | None = None

    def remember(self) -> None:
        """Note the last heartbeat of an earlier daemon."""
        self._before = self._latest()

    def beats(self) -> bool:
        """Whether there is a newer one."""
        latest = self._latest()
        return latest is not None and latest != self._before

    def _latest(self) -> datetime | None:
        missing = (psycopg.OperationalError, psycopg.errors.UndefinedTable)
        query = "SELECT max(timestamp) FROM daemon_heartbeats"
        with suppress(*missing), psycopg.connect(self._url, connect_timeout=3) as connection:
            row = connection.execute(query).fetchone()
            return row[0] if row else None
        return None
