"""Ingest against `mosquitto_sub | psql COPY`: from the first publish to the last commit.

Both get the same messages of about 300 bytes from the same publishers through the same broker
into the same Postgres, in turn, on this machine with everything on it. The peer only copies lines
into a bare table; ingest parses, checks, de-duplicates, keeps device state, outbox and ledger.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.progress import Progress

from bench import copy_peer, database
from bench.messages import HOST
from bench.process import BenchError, cpu_s, helpers, peak_rss_mib, rss_mib
from bench.publisher import DEVICES, published_ids, publishers
from bench.servers import MOSQUITTO, Servers, free_port, running_ingest, running_servers
from zenthos_core.observability import OTLP_ENDPOINT

QUARTERS: Final = 4


@dataclass(frozen=True)
class IngestRun:
    """One run of ingest."""

    seconds: float
    lost: int
    duplicated: int
    cpu_s: float
    peak_rss_mib: float
    rss_mib: list[float]


@dataclass(frozen=True)
class Round:
    """Ingest, ingest with traces where their cost is asked for, and the peer, one after another."""

    ours: IngestRun
    traced: IngestRun | None
    peer_s: float


@dataclass(frozen=True)
class IngestResult:
    """Medians over the runs; lost and duplicated are sums, memory is the worst run's."""

    messages: int
    seconds: float
    msg_per_s: int
    peer_msg_per_s: int
    ratio: float
    ratio_min: float
    ratio_max: float
    lost: int
    duplicated: int
    cpu_us_per_message: float
    peak_rss_mib: float
    rss_mib: list[float]
    """After each quarter of the messages."""
    trace_cost_percent: float | None
    """By how much longer a run with traces takes than the one beside it."""
    trace_cpu_percent: float | None
    """By how much more CPU time it takes."""
    commit_delay_us: int
    runs: int
    devices: int
    peer: str


def run_ingest_bench(
    messages: int = 200_000,
    *,
    runs: int = 3,
    commit_delay_us: int = 0,
    trace_cost: bool = False,
    mosquitto: Path = MOSQUITTO,
) -> IngestResult:
    """Measure ingest and its peer in turn, `runs` times each.

    Raises:
        ConfigurationError: a server is missing or does not start.
        BenchError: a run got stuck.
    """
    rounds: list[Round] = []
    delay = {"commit_delay": str(commit_delay_us), "commit_siblings": "0"}
    with (
        Progress(console=Console(stderr=True)) as progress,
        running_servers(mosquitto, delay) as servers,
        database.connect(servers.database_url) as connection,
    ):
        copy_peer.create_table(connection)
        for number in progress.track(range(runs), description="ingest and peer in turn"):
            rounds.append(_run_round(servers, connection, messages, number, trace_cost))
    return _summarise(messages, commit_delay_us, rounds)


def _run_round(
    servers: Servers, connection: psycopg.Connection, messages: int, number: int, trace_cost: bool
) -> Round:
    traced = None
    if trace_cost and number % 2:  # once after, once before: what drifts counts for neither
        traced = _run_traced(servers, connection, messages, number)
    ours = _run_ingest(servers, connection, messages, number)
    if trace_cost and traced is None:
        traced = _run_traced(servers, connection, messages, number)
    return Round(ours, traced, _run_peer(servers, connection, messages, number))


def _run_ingest(
    servers: Servers,
    connection: psycopg.Connection,
    messages: int,
    seed: int,
    environment: dict[str, str] | None = None,
) -> IngestRun:
    database.prepare(connection, DEVICES, copy_peer.TABLE)
    memory: list[float] = []
    with (
        running_ingest(servers, environment) as ingest,
        publishers(servers.broker.port, messages, seed) as fleet,
    ):

        def watch(counted: int) -> None:
            fleet.stored(counted)
            while counted * QUARTERS >= (len(memory) + 1) * messages:
                memory.append(rss_mib(ingest.pid))

        cpu_before = cpu_s(ingest.pid)
        started = fleet.start()
        database.await_count(connection, database.COUNTED, messages, watch=watch)
        seconds = time.perf_counter() - started
        used_s = cpu_s(ingest.pid) - cpu_before
        peak = peak_rss_mib(ingest.pid)
    lost, duplicated = database.lost_and_duplicated(connection, published_ids(messages, seed))
    return IngestRun(seconds, lost, duplicated, used_s, peak, memory[:QUARTERS])


def _run_traced(
    servers: Servers, connection: psycopg.Connection, messages: int, seed: int
) -> IngestRun:
    """Ingest as it exports traces and metrics to a collector."""
    with _collector() as endpoint:
        return _run_ingest(servers, connection, messages, seed, {OTLP_ENDPOINT: endpoint})


@contextmanager
def _collector() -> Iterator[str]:
    """A collector's address; BenchError where nothing was sent to it."""
    port = free_port()
    with helpers("bench.otlp_sink", (port,)) as [sink]:
        yield f"http://{HOST}:{port}"
        if not int(sink.finish()):
            raise BenchError("ingest exported no traces: their cost was not measured")


def _run_peer(servers: Servers, connection: psycopg.Connection, messages: int, seed: int) -> float:
    """Seconds from the first publish until the peer has committed all rows."""
    database.prepare(connection, DEVICES, copy_peer.TABLE)
    with (
        copy_peer.subscribed(servers, messages) as peer,
        publishers(servers.broker.port, messages, seed) as fleet,
        peer.running() as sink,
    ):
        started = fleet.start()
        return peer.await_commit(sink, connection, watch=fleet.stored) - started


def _summarise(messages: int, commit_delay_us: int, rounds: list[Round]) -> IngestResult:
    ours, peers = [r.ours for r in rounds], [r.peer_s for r in rounds]
    traced = [r.traced for r in rounds if r.traced]
    seconds, peer_s = statistics.median(run.seconds for run in ours), statistics.median(peers)
    ratios = [r.peer_s / r.ours.seconds for r in rounds]
    return IngestResult(
        messages=messages,
        seconds=round(seconds, 3),
        msg_per_s=round(messages / seconds),
        peer_msg_per_s=round(messages / peer_s),
        ratio=round(peer_s / seconds, 3),
        ratio_min=round(min(ratios), 3),
        ratio_max=round(max(ratios), 3),
        lost=sum(run.lost for run in [*ours, *traced]),
        duplicated=sum(run.duplicated for run in [*ours, *traced]),
        cpu_us_per_message=round(1e6 * statistics.median(r.cpu_s for r in ours) / messages, 1),
        peak_rss_mib=max(run.peak_rss_mib for run in ours),
        rss_mib=[max(each) for each in zip(*(run.rss_mib for run in ours), strict=True)],
        trace_cost_percent=_more([(r.traced.seconds, r.ours.seconds) for r in rounds if r.traced]),
        trace_cpu_percent=_more([(r.traced.cpu_s, r.ours.cpu_s) for r in rounds if r.traced]),
        commit_delay_us=commit_delay_us,
        runs=len(rounds),
        devices=DEVICES,
        peer=copy_peer.description(messages),
    )


def _more(pairs: list[tuple[float, float]]) -> float | None:
    """By how many percent the first of a pair is more than the second, the median of all."""
    if not pairs:
        return None
    return round(100 * (statistics.median(one / other for one, other in pairs) - 1), 1)
