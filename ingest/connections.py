"""Connections of ingest to the database, each bounded in how long an answer may take.

A connection that was given up may live on at the server, with locks on the very rows that the next
try inserts: in the midst of a COPY the server waits for as long as somebody, such as a proxy, keeps
the connection open. So whoever connects next ends it first, and a process that starts ends what its
predecessors, workers of the same id, have left.
"""

import logging
import secrets
from collections import deque
from typing import Final

import psycopg

from zenthos_core.database import connect

logger = logging.getLogger(__name__)

# By its name, too: a process of that number may be another's by now.
_END: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND application_name = current_setting('application_name')
  AND usename = current_user AND datname = current_database()
"""
_END_PREDECESSORS: Final = """
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE starts_with(application_name, %s) AND usename = current_user
  AND datname = current_database()
  AND application_name <> current_setting('application_name')
"""


class Connector:
    """Opens connections in autocommit; any thread may."""

    def __init__(self, url: str, answer_within_s: float, worker_id: str) -> None:
        self._url = url
        self._answer_within_s = answer_within_s
        self._worker = f"ingest/{worker_id}/"
        self._process = f"{self._worker}{secrets.token_hex(4)}"
        self._is_first = True
        self._given_up: deque[int] = deque()

    def __call__(self) -> psycopg.Connection:
        """A new connection; psycopg.OperationalError where there is none to be had."""
        connection = connect(
            self._url,
            application=self._process,
            autocommit=True,
            answer_within_s=self._answer_within_s,
            on_silence=self._given_up.append,
        )
        if self._is_first:
            ended = connection.execute(_END_PREDECESSORS, [f"zenthos-{self._worker}"])
            for backend_pid, _ in ended:
                logger.info("ended server process %d of a predecessor", backend_pid)
            self._is_first = False
        while self._given_up:
            backend_pid = self._given_up[0]
            connection.execute(_END, [backend_pid])
            self._given_up.popleft()
            logger.info("ended server process %d, which had not answered", backend_pid)
        return connection
