"""How long a reading takes from the device's socket to the commit, at a fleet's steady rate.

Published: the moment before the packet is handed to the socket (`bench.load`). Committed: Postgres'
own commit timestamp of the row (track_commit_timestamp), by the same clock. The two are joined by
message_id after the run, so that measuring takes nothing while it lasts. The peer commits each
message by itself: what batching costs or gains shows between the two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from rich.console import Console
from rich.progress import Progress

from bench import commit_peer, database
from bench.load import SPIKE, SPIKE_S, STEADY, Load, LoadReport, send_load
from bench.process import BenchError, cpu_s, helpers, peak_rss_mib
from bench.servers import (
    INGEST_USER,
    MOSQUITTO,
    Servers,
    end_session,
    running_ingest,
    running_servers,
)

_POSTGRES: Final = {"track_commit_timestamp": "on"}
_SENT: Final = "CREATE TEMP TABLE sent (message_id uuid, at float8, phase text)"
_COMMITTED: Final = """
CREATE TEMP TABLE committed AS
SELECT s.phase, s.at, extract(epoch FROM pg_xact_commit_timestamp(t.xmin))::float8 AS committed_at
FROM sent s JOIN {table} t USING (message_id)
"""
_QUANTILES: Final = """
SELECT 1e3 * percentile_cont(0.5) WITHIN GROUP (ORDER BY committed_at - at),
       1e3 * percentile_cont(0.99) WITHIN GROUP (ORDER BY committed_at - at)
FROM committed WHERE phase = %s
"""
_LAST: Final = "SELECT max(committed_at) FROM committed WHERE phase = %s"


@dataclass(frozen=True)
class Latency:
    """What one subscriber reached under the load."""

    p50_ms: float
    p99_ms: float
    spike_drain_s: float | None


@dataclass(frozen=True)
class Run:
    """Ingest under the load."""

    latency: Latency
    load: LoadReport
    lost: int
    duplicated: int
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True)
class LatencyResult:
    """Quantiles are those of the steady load after the warm-up; the rest counts all messages."""

    connections: int
    interval_s: float
    seconds: float
    messages: int
    msg_per_s: float
    p50_ms: float
    p99_ms: float
    peer_p50_ms: float
    peer_p99_ms: float
    spike: int
    spike_drain_s: float | None
    """From the end of the spike's second to the commit of the last of its messages."""
    peer_spike_drain_s: float | None
    lost: int
    duplicated: int
    cpu_us_per_message: float
    peak_rss_mib: float
    send_lateness_p99_ms: float
    """How late the load generator was; where it is much, the machine was the limit."""
    load_cpu_us_per_message: float
    peer: str


def run_latency_bench(load: Load, *, mosquitto: Path = MOSQUITTO) -> LatencyResult:
    """Measure ingest, then its peer, under the same load.

    Raises:
        ConfigurationError: a server is missing or does not start.
        BenchError: paho is missing, the load is empty, or a run got stuck.
    """
    commit_peer.require_paho()
    if load.seconds * load.rate_per_s < 1:
        raise BenchError("no message falls into the time measured: more seconds or connections")
    with (
        Progress(console=Console(stderr=True)) as progress,
        running_servers(mosquitto, _POSTGRES) as servers,
        database.connect(servers.database_url) as connection,
    ):
        connection.execute(commit_peer.CREATE)
        task = progress.add_task(f"ingest at {load.rate_per_s:.0f} msg/s", total=2)
        ours = _run_ingest(servers, connection, load)
        progress.update(task, advance=1, description="peer under the same load")
        peer = _run_peer(servers, connection, load)
        progress.advance(task)
    return _summarise(load, ours, peer)


def _run_ingest(servers: Servers, connection: psycopg.Connection, load: Load) -> Run:
    database.prepare(connection, load.connections, commit_peer.TABLE)
    with running_ingest(servers) as ingest:
        cpu_before = cpu_s(ingest.pid)
        report = _send(servers, connection, load)
        database.await_count(connection, database.COUNTED, report.messages)
        used_s = cpu_s(ingest.pid) - cpu_before
        peak = peak_rss_mib(ingest.pid)
    lost, duplicated = database.lost_and_duplicated(connection, load.ids())
    latency = _latency(connection, load, report, "telemetry_hot")
    return Run(latency, report, lost, duplicated, used_s, peak)


def _run_peer(servers: Servers, connection: psycopg.Connection, load: Load) -> Latency:
    database.prepare(connection, load.connections, commit_peer.TABLE)
    arguments = (
        *(servers.broker.port, INGEST_USER, servers.ingest_password),
        servers.database_url,
    )
    with helpers("bench.commit_peer", arguments) as [peer]:
        report = _send(servers, connection, load)
        database.await_count(connection, commit_peer.COUNTED, report.messages)
        peer.finish()
    end_session(servers, commit_peer.SESSION)
    return _latency(connection, load, report, commit_peer.TABLE)


def _send(servers: Servers, connection: psycopg.Connection, load: Load) -> LoadReport:
    """Put the load on the broker; when each message was published is then in the table `sent`."""
    file = servers.folder / "sent"
    report = send_load(servers.broker.port, load, file)
    connection.execute("DROP TABLE IF EXISTS sent")
    connection.execute(_SENT)
    with connection.cursor().copy("COPY sent FROM STDIN") as copy:
        copy.write(file.read_bytes())
    return report


def _latency(
    connection: psycopg.Connection, load: Load, report: LoadReport, table: LiteralString
) -> Latency:
    connection.execute("DROP TABLE IF EXISTS committed")
    connection.execute(_COMMITTED.format(table=table))
    p50_ms, p99_ms = _numbers(connection, _QUANTILES, STEADY)
    drain_s = None
    if load.spike:
        [last] = _numbers(connection, _LAST, SPIKE)
        drain_s = round(max(0.0, last - (report.started + load.spike_at_s + SPIKE_S)), 3)
    return Latency(round(p50_ms, 2), round(p99_ms, 2), drain_s)


def _numbers(connection: psycopg.Connection, query: LiteralString, phase: str) -> tuple[float, ...]:
    row = connection.execute(query, [phase]).fetchone()
    if row is None or None in row:
        raise BenchError(f"none of the {phase} messages was stored")
    return row


def _summarise(load: Load, ours: Run, peer: Latency) -> LatencyResult:
    return LatencyResult(
        connections=load.connections,
        interval_s=load.interval_s,
        seconds=load.seconds,
        messages=ours.load.messages,
        msg_per_s=round(load.rate_per_s, 1),
        p50_ms=ours.latency.p50_ms,
        p99_ms=ours.latency.p99_ms,
        peer_p50_ms=peer.p50_ms,
        peer_p99_ms=peer.p99_ms,
        spike=load.spike,
        spike_drain_s=ours.latency.spike_drain_s,
        peer_spike_drain_s=peer.spike_drain_s,
        lost=ours.lost,
        duplicated=ours.duplicated,
        cpu_us_per_message=round(1e6 * ours.cpu_s / ours.load.messages, 1),
        peak_rss_mib=ours.peak_rss_mib,
        send_lateness_p99_ms=ours.load.send_lateness_p99_ms,
        load_cpu_us_per_message=ours.load.cpu_us_per_message,
        peer=commit_peer.DESCRIPTION,
    )
