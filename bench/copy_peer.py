"""The peer of throughput: `mosquitto_sub | psql COPY`, which stores the raw lines and no more."""

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from bench import database
from bench.process import BenchError
from bench.publisher import SLOWEST_PER_S
from bench.servers import INGEST_USER, Servers, end_session
from zenthos_cli.stack.postgres import program

TABLE: Final = "peer_lines"
SESSION: Final = "bench-peer"
_CREATE: Final = "CREATE TABLE peer_lines (line text NOT NULL)"
_PROGRESS: Final = "SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy"
_ROWS: Final = "SELECT count(*) FROM peer_lines"


def create_table(connection: psycopg.Connection) -> None:
    """Where the peer's lines go."""
    connection.execute(_CREATE)


def description(messages: int) -> str:
    """The peer as a shell would run it."""
    return " | ".join(map(shlex.join, _commands("HOST", "PORT", "PASSWORD", messages)))


class CopyPeer:
    """A subscription that waits at the broker until `run` collects it."""

    def __init__(self, servers: Servers, messages: int) -> None:
        self._servers, self._messages = servers, messages
        mosquitto = servers.broker.mosquitto
        self._environment = servers.broker.environment()
        self._subscribe, self._copy = _commands(
            "127.0.0.1", str(servers.broker.port), servers.ingest_password, messages
        )
        self._subscribe[0] = mosquitto.program(self._subscribe[0])
        self._copy[0] = program(self._copy[0])
        # This connection leaves the subscription behind (-E), so that no message is missed.
        subprocess.run(
            [*self._subscribe, "-E"],
            env=self._environment,
            check=True,
            timeout=database.STALL_S,
        )

    @contextmanager
    def running(self) -> "Iterator[subprocess.Popen[bytes]]":
        """Both programs; the one that is yielded ends with the commit."""
        source = subprocess.Popen(self._subscribe, env=self._environment, stdout=subprocess.PIPE)
        sink = subprocess.Popen([*self._copy, self._servers.database_url], stdin=source.stdout)
        try:
            yield sink
        finally:
            source.kill()
            source.wait()
            sink.wait(database.STALL_S)

    def await_commit(
        self,
        sink: "subprocess.Popen[bytes]",
        connection: psycopg.Connection,
        *,
        watch: Callable[[int], None] = lambda _: None,
    ) -> float:
        """The moment (perf_counter) at which all was committed; `watch` hears how far it is.

        Raises:
            BenchError: the peer failed, or stored less, or takes too long.
        """
        deadline = time.monotonic() + database.STALL_S + self._messages / SLOWEST_PER_S
        while sink.poll() is None and time.monotonic() < deadline:
            time.sleep(database.POLL_S)
            watch(database.number(connection, _PROGRESS))
        committed = time.perf_counter()
        rows = database.number(connection, _ROWS)
        if sink.poll() != 0 or rows != self._messages:
            raise BenchError(f"the peer stored {rows} of {self._messages} messages")
        return committed


@contextmanager
def subscribed(servers: Servers, messages: int) -> Iterator[CopyPeer]:
    """A peer for so many messages, whose session the broker then forgets."""
    peer = CopyPeer(servers, messages)
    try:
        yield peer
    finally:
        end_session(servers, SESSION)


def _commands(host: str, port: str, password: str, messages: int) -> list[list[str]]:
    subscribe = ["mosquitto_sub", "-h", host, "-p", port, "-u", INGEST_USER, "-P", password]
    subscribe += ["-c", "-i", SESSION, "-q", "1", "-t", "zenthos/#", "-C", str(messages)]
    return [subscribe, ["psql", "-qc", f"COPY {TABLE} FROM STDIN"]]
