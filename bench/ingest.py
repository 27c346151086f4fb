"""Ingest against `mosquitto_sub | psql COPY`: from the first publish to the last commit.

Both get the same messages of about 300 bytes from the same publishers through the same broker
into the same Postgres, in turn, on this machine with everything on it. The peer only copies lines
into a bare table; ingest parses, checks, de-duplicates, keeps device state, outbox and ledger.
"""

import os
import shlex
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, LiteralString

import psycopg
from rich.console import Console
from rich.progress import Progress

from bench import publisher
from bench.publisher import DEVICES, MODEL
from bench.servers import INGEST_USER, Servers, free_port, running_servers, wait_until
from zenthos_cli.stack.postgres import program
from zenthos_core import mqtt
from zenthos_core.errors import ZenthosError

PUBLISHERS: Final = 2
MOSQUITTO: Final = Path(".zenthos/mosquitto")
STALL_S: Final = 60.0
POLL_S: Final = 0.02
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

_PREPARE: Final = f"""
CREATE TABLE peer_lines (line text NOT NULL);
INSERT INTO farms (name) VALUES ('bench');
INSERT INTO devices (id, farm_id, device_model, device_type)
SELECT 'bench-' || lpad(i::text, 4, '0'), farms.id, '{MODEL}', 'soil'
FROM farms, generate_series(0, {DEVICES - 1}) i;
"""
_EMPTY: Final = """
TRUNCATE telemetry_hot, raw_messages, ledger, quarantine, peer_lines;
CHECKPOINT;
"""
_COUNTED: Final = "SELECT coalesce(sum(stored + duplicate + quarantined), 0)::int8 FROM ledger"
_LOST: Final = """
SELECT count(*) FROM unnest(%s::uuid[]) AS published (id)
WHERE NOT EXISTS (SELECT FROM telemetry_hot t WHERE t.message_id = published.id)
"""
_DUPLICATED: Final = "SELECT count(*) - count(DISTINCT message_id) FROM telemetry_hot"


class BenchError(ZenthosError):
    """A benchmark could not be carried through."""


@dataclass(frozen=True)
class IngestRun:
    """One run of ingest."""

    seconds: float
    lost: int
    duplicated: int
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Result:
    """Medians over the runs; lost and duplicated are sums. Printed as one line of JSON."""

    messages: int
    seconds: float
    msg_per_s: int
    peer_msg_per_s: int
    ratio: float
    lost: int
    duplicated: int
    cpu_us_per_message: float
    peak_rss_mib: float
    runs: int
    devices: int
    peer: str


def run_ingest_bench(
    messages: int = 200_000, *, runs: int = 3, mosquitto: Path = MOSQUITTO
) -> Result:
    """Measure ingest and its peer in turn, `runs` times each.

    Raises:
        ConfigurationError: a server is missing or does not start.
        BenchError: a run got stuck.
    """
    ours: list[IngestRun] = []
    peers: list[float] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("starting Postgres and Mosquitto", total=2 * runs)
        with running_servers(mosquitto) as servers, _connect(servers) as connection:
            connection.execute(_PREPARE)
            for number in range(runs):
                progress.update(task, description=f"ingest, run {number + 1} of {runs}")
                ours.append(_run_ingest(servers, connection, messages, seed=number))
                progress.advance(task)
                progress.update(task, description=f"peer, run {number + 1} of {runs}")
                peers.append(_run_peer(servers, connection, messages, seed=number))
                progress.advance(task)
    return _summarise(messages, ours, peers)


def _summarise(messages: int, ours: list[IngestRun], peers: list[float]) -> Result:
    seconds, peer_seconds = statistics.median(r.seconds for r in ours), statistics.median(peers)
    return Result(
        messages=messages,
        seconds=round(seconds, 3),
        msg_per_s=round(messages / seconds),
        peer_msg_per_s=round(messages / peer_seconds),
        ratio=round(peer_seconds / seconds, 3),
        lost=sum(r.lost for r in ours),
        duplicated=sum(r.duplicated for r in ours),
        cpu_us_per_message=round(1e6 * statistics.median(r.cpu_s for r in ours) / messages, 1),
        peak_rss_mib=round(max(r.peak_rss_mib for r in ours), 1),
        runs=len(ours),
        devices=DEVICES,
        peer=" | ".join(map(shlex.join, _peer_commands("HOST", "PORT", "PASSWORD", messages))),
    )


def _connect(servers: Servers) -> psycopg.Connection:
    return psycopg.connect(servers.database_url, autocommit=True)


def _run_ingest(
    servers: Servers, connection: psycopg.Connection, messages: int, seed: int
) -> IngestRun:
    connection.execute(_EMPTY)
    with _ingest(servers) as process, _publishers(servers, messages, seed) as start:
        cpu_before = _cpu_s(process.pid)
        started = start()
        _await_ledger(connection, messages)
        seconds = time.perf_counter() - started
        cpu_s = _cpu_s(process.pid) - cpu_before
        peak = _peak_rss_mib(process.pid)
    _end_session(servers)
    published = [
        message_id
        for first, count in _shares(messages)
        for message_id in publisher.message_ids(seed, first, count)
    ]
    lost = _number(connection, _LOST, published)
    return IngestRun(seconds, lost, _number(connection, _DUPLICATED), cpu_s, peak)


def _run_peer(servers: Servers, connection: psycopg.Connection, messages: int, seed: int) -> float:
    """Seconds from the first publish until `mosquitto_sub | psql COPY` has committed all rows."""
    connection.execute(_EMPTY)
    mosquitto, environment = servers.broker.mosquitto, servers.broker.environment()
    subscribe, copy = _peer_commands(
        "127.0.0.1", str(servers.broker.port), servers.ingest_password, messages
    )
    subscribe[0], copy[0] = mosquitto.program(subscribe[0]), program(copy[0])
    # A first connection leaves the subscription behind, so that no message is missed (-E).
    subprocess.run([*subscribe, "-E"], env=environment, check=True, timeout=STALL_S)
    with _publishers(servers, messages, seed) as start:
        source = subprocess.Popen(subscribe, env=environment, stdout=subprocess.PIPE)
        sink = subprocess.Popen([*copy, servers.database_url], stdin=source.stdout)
        started = start()
        try:
            code = sink.wait(STALL_S + messages / 500)
        finally:
            source.kill()
            source.wait()
        seconds = time.perf_counter() - started
    clean = [argument for argument in subscribe if argument != "-c"]
    subprocess.run([*clean, "-E"], env=environment, check=True, timeout=STALL_S)
    rows = _number(connection, "SELECT count(*) FROM peer_lines")
    if code or rows != messages:
        raise BenchError(f"the peer stored {rows} of {messages} messages (exit code {code})")
    return seconds


def _peer_commands(host: str, port: str, password: str, messages: int) -> list[list[str]]:
    subscribe = ["mosquitto_sub", "-h", host, "-p", port, "-u", INGEST_USER, "-P", password]
    subscribe += ["-c", "-i", "bench-peer", "-q", "1", "-t", "zenthos/#", "-C", str(messages)]
    return [subscribe, ["psql", "-qc", "COPY peer_lines FROM STDIN"]]


@contextmanager
def _ingest(servers: Servers) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m ingest`, ready."""
    port = free_port()
    environment = os.environ | {
        "ZENTHOS_DATABASE_URL": servers.database_url,
        "ZENTHOS_MQTT_PORT": str(servers.broker.port),
        "ZENTHOS_MQTT_USERNAME": INGEST_USER,
        "ZENTHOS_MQTT_PASSWORD": servers.ingest_password,
        "ZENTHOS_INGEST_METRICS_PORT": str(port),
    }
    log = servers.folder / "ingest.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest"], cwd=servers.folder, env=environment, stderr=output
        )
    try:
        wait_until(lambda: _is_ready(port), process, log)
        yield process
    finally:
        process.terminate()
        process.wait(STALL_S)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _publishers(servers: Servers, messages: int, seed: int) -> Iterator[Callable[[], float]]:
    """Publishers that have encoded everything; call what is yielded to let them loose."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.publisher"]
            + [str(n) for n in (servers.broker.port, first, count, seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for first, count in _shares(messages)
    ]

    def start() -> float:
        started = time.perf_counter()
        for process in processes:
            _pipe(process.stdin).close()
        return started

    try:
        for process in processes:
            if _pipe(process.stdout).readline() != b"ready\n":
                raise BenchError("a publisher did not start; its error is above")
        yield start
        if any(process.wait(STALL_S) for process in processes):
            raise BenchError("a publisher failed; its error is above")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise BenchError("a publisher has no pipe")
    return pipe


def _shares(messages: int) -> list[tuple[int, int]]:
    """First message and number of messages of each publisher."""
    bounds = [messages * n // PUBLISHERS for n in range(PUBLISHERS + 1)]
    return [(first, last - first) for first, last in pairwise(bounds)]


def _await_ledger(connection: psycopg.Connection, messages: int) -> None:
    """Wait until the ledger accounts for all messages."""
    counted, moved_at = 0, time.monotonic()
    while counted < messages:
        time.sleep(POLL_S)
        before, counted = counted, _number(connection, _COUNTED)
        if counted != before:
            moved_at = time.monotonic()
        if time.monotonic() - moved_at > STALL_S:
            raise BenchError(f"ingest stopped at {counted} of {messages} messages")


def _number(connection: psycopg.Connection, query: LiteralString, *parameters: object) -> int:
    row = connection.execute(query, parameters).fetchone()
    return int(row[0]) if row else 0


def _end_session(servers: Servers) -> None:
    """Make the broker forget ingest's session, so that it collects nothing of the peer's run."""
    with socket.create_connection(("127.0.0.1", servers.broker.port)) as connection:
        connection.sendall(
            mqtt.encode_connect(
                "zenthos-ingest-1",
                INGEST_USER,
                servers.ingest_password,
                keep_alive_s=0,
                clean_start=True,
            )
        )
        connection.recv(4096)
        connection.sendall(mqtt.DISCONNECT)


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _peak_rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
