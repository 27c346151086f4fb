"""How fast ingest catches up once Postgres is back from an outage.

Postgres is stopped, devices go on publishing, Postgres is started again: the time counts from its
first accepted connection until the ledger has each message, ingest's own waiting included. The
backlog waits at the broker or in ingest's spool (ZENTHOS_INGEST_SPOOL_AFTER_S). The peer,
`mosquitto_sub | psql COPY`, collects the same backlog from its session at the broker.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.progress import Progress

from bench import copy_peer, database
from bench.load import Load, send_load
from bench.process import BenchError, await_idle, cpu_s, peak_rss_mib
from bench.publisher import DEVICES, publish_all, published_ids
from bench.servers import MOSQUITTO, Servers, running_ingest, running_servers

PEER_SEED: Final = 1
SPOOL_MARGIN_S: Final = 2.0


class Outage(msgspec.Struct, frozen=True):
    """How long the database is away, and what devices publish meanwhile."""

    outage_s: float = 300.0
    rate_per_s: float = 1_000.0
    real_time: bool = False
    """False publishes as fast as the broker takes it, which shortens the outage."""
    spool_after_s: float = 2.0

    @property
    def messages(self) -> int:
        """All that is published during the outage."""
        return round(self.outage_s * self.rate_per_s)

    @property
    def load(self) -> Load:
        """The same in real time."""
        return Load(DEVICES, DEVICES / self.rate_per_s, warm_up_s=0.0, seconds=self.outage_s)

    def ids(self) -> Iterator[bytes]:
        """The ids of the messages."""
        return self.load.ids() if self.real_time else published_ids(self.messages, seed=0)


@dataclass(frozen=True)
class DrainRun:
    """One outage and what came after."""

    down_s: float
    resume_s: float
    seconds: float
    lost: int
    duplicated: int
    cpu_s: float
    peak_rss_mib: float
    broker_rss_mib: float


@dataclass(frozen=True)
class DrainResult:
    """`down_s` is how long Postgres was really away; memory is the peak of outage and drain."""

    messages: int
    outage_s: float
    rate_per_s: float
    compressed: bool
    down_s: float
    spool_after_s: float
    resume_s: float
    """How much of `seconds` went by before the first commit."""
    seconds: float
    drain_msg_per_s: int
    peer_msg_per_s: int
    ratio: float
    lost: int
    duplicated: int
    cpu_us_per_message: float
    peak_rss_mib: float
    broker_rss_mib: float
    devices: int
    peer: str


def run_drain_bench(outage: Outage, *, mosquitto: Path = MOSQUITTO) -> DrainResult:
    """Measure the recovery of ingest, then its peer on the same backlog.

    Raises:
        ConfigurationError: a server is missing or does not start.
        BenchError: there is nothing to publish, or a run got stuck.
    """
    if not outage.messages:
        raise BenchError("nothing is published during the outage: raise its length or the rate")
    with (
        Progress(console=Console(stderr=True)) as progress,
        running_servers(mosquitto) as servers,
    ):
        with database.connect(servers.database_url) as connection:
            copy_peer.create_table(connection)
            database.prepare(connection, DEVICES)
        task = progress.add_task(f"outage with {outage.messages} messages, drain", total=2)
        ours = _run_ingest(servers, outage)
        progress.update(task, advance=1, description="peer on the same backlog")
        with database.connect(servers.database_url) as connection:
            peer_s = _run_peer(servers, connection, outage.messages)
        progress.advance(task)
    return _summarise(outage, ours, peer_s)


def _run_ingest(servers: Servers, outage: Outage) -> DrainRun:
    spool = {
        "ZENTHOS_INGEST_SPOOL_AFTER_S": f"{outage.spool_after_s:g}",
        "ZENTHOS_INGEST_SPOOL_DIR": str(servers.folder / "spool"),
    }
    with running_ingest(servers, spool) as ingest:
        servers.postgres.stop()
        stopped = time.perf_counter()
        _publish(servers, outage)
        _sit_out(outage, stopped)
        await_idle(ingest.pid)  # it has taken of the backlog what it will
        cpu_before = cpu_s(ingest.pid)
        servers.postgres.start()
        started = time.perf_counter()
        resumed: list[float] = []

        def watch(counted: int) -> None:
            if counted and not resumed:
                resumed.append(time.perf_counter() - started)

        with database.connect(servers.database_url) as connection:
            database.await_count(connection, database.COUNTED, outage.messages, watch=watch)
            seconds = time.perf_counter() - started
            used_s = cpu_s(ingest.pid) - cpu_before
            lost, duplicated = database.lost_and_duplicated(connection, outage.ids())
        return DrainRun(
            down_s=started - stopped,
            resume_s=resumed[0],
            seconds=seconds,
            lost=lost,
            duplicated=duplicated,
            cpu_s=used_s,
            peak_rss_mib=peak_rss_mib(ingest.pid),
            broker_rss_mib=peak_rss_mib(servers.mosquitto.pid),
        )


def _publish(servers: Servers, outage: Outage) -> None:
    if outage.real_time:
        send_load(servers.broker.port, outage.load, servers.folder / "sent")
    else:
        publish_all(servers.broker.port, outage.messages, seed=0)


def _sit_out(outage: Outage, stopped: float) -> None:
    """Let the outage last until ingest spools, were it in real time that long."""
    shortest_s = min(outage.spool_after_s + SPOOL_MARGIN_S, outage.outage_s)
    time.sleep(max(0.0, stopped + shortest_s - time.perf_counter()))


def _run_peer(servers: Servers, connection: psycopg.Connection, messages: int) -> float:
    """Seconds from the peer's start until it has committed the whole backlog."""
    database.prepare(connection, DEVICES, copy_peer.TABLE)
    with copy_peer.subscribed(servers, messages) as peer:
        publish_all(servers.broker.port, messages, seed=PEER_SEED)
        started = time.perf_counter()
        with peer.running() as sink:
            return peer.await_commit(sink, connection) - started


def _summarise(outage: Outage, ours: DrainRun, peer_s: float) -> DrainResult:
    messages = outage.messages
    return DrainResult(
        messages=messages,
        outage_s=outage.outage_s,
        rate_per_s=outage.rate_per_s,
        compressed=not outage.real_time,
        down_s=round(ours.down_s, 1),
        spool_after_s=outage.spool_after_s,
        resume_s=round(ours.resume_s, 3),
        seconds=round(ours.seconds, 3),
        drain_msg_per_s=round(messages / ours.seconds),
        peer_msg_per_s=round(messages / peer_s),
        ratio=round(peer_s / ours.seconds, 3),
        lost=ours.lost,
        duplicated=ours.duplicated,
        cpu_us_per_message=round(1e6 * ours.cpu_s / messages, 1),
        peak_rss_mib=ours.peak_rss_mib,
        broker_rss_mib=ours.broker_rss_mib,
        devices=DEVICES,
        peer=copy_peer.description(messages),
    )
