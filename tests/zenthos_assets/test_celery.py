"""Steps on two Celery workers, by a real RabbitMQ: the same bytes as in one process."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.servers import PostgresServer, RabbitServer
from tests.zenthos_assets.cluster import RUN_TIMEOUT_S, Cluster, Worker, make_cluster
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets.executors import ARCHIVE_QUEUE, BUILD_QUEUE
from zenthos_core import lake
from zenthos_core.blobs import FolderStore

pytestmark = pytest.mark.timeout(600)

DAYS = ("2026-11-10", "2026-11-12")
SUCCESS = dg.DagsterRunStatus.SUCCESS
DEVICES = ("soil-1", "soil-4")
"""Of different halves of the buckets."""


@pytest.fixture
def cluster(
    farmyard: Farmyard,
    postgres: PostgresServer,
    rabbitmq: RabbitServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    """A twin of the farmyard, both with the same messages in their outbox."""
    farmyard.register("soil-4")
    start = RECEIVED.replace(day=10, hour=0, minute=0)
    times = [start + timedelta(hours=hour) for hour in range(72)]
    farmyard.receive(reading(device, at) for at in times for device in DEVICES)
    farmyard.receive([b'{"level": "info"}'], message_type="logs")
    templates = {
        "ZENTHOS_DATABASE_URL": farmyard.ops_url,
        "ZENTHOS_ANALYTICS_DATABASE_URL": farmyard.analytics_url,
    }
    twin = make_cluster(tmp_path / "cluster", postgres, rabbitmq, templates)
    url = "ZENTHOS_DAGSTER_DATABASE_URL"
    monkeypatch.setenv(url, twin.environment[url])  # dagster.yaml names it
    yield twin
    twin.stop()


def lake_bytes(store: FolderStore) -> dict[tuple[str, str], bytes]:
    """All that has been built, without the pieces, which only a sharded lineage has."""
    buckets = (lake.BRONZE, lake.SILVER, lake.GOLD)
    return {
        (bucket, key): store.get(bucket, key)
        for bucket in buckets
        for key in store.keys(bucket)
        if "_pieces/" not in key
    }


def in_one_process(yard: Farmyard) -> dict[tuple[str, str], bytes]:
    assert yard.run("archive", HOUR_KEY).success
    assert yard.run("daily", *DAYS).success
    return lake_bytes(yard.store)


@pytest.mark.e2e
def test_two_workers_write_the_same_bytes_as_one_process(
    farmyard: Farmyard, cluster: Cluster
) -> None:
    cluster.add_worker(ARCHIVE_QUEUE, "archive-1")
    for name in ("build-1", "build-2"):
        cluster.add_worker(BUILD_QUEUE, name)
    assert cluster.run("archive", HOUR_KEY, HOUR_KEY) is SUCCESS
    assert {worker for _, worker in cluster.executions()} == {"archive-1"}
    assert cluster.run("daily", *DAYS) is SUCCESS
    assert {worker for _, worker in cluster.executions()} == {"build-1", "build-2"}
    assert lake_bytes(cluster.store) == in_one_process(farmyard)
    kept = [path for path in (cluster.folder / "storage").rglob("*") if path.is_file()]
    assert [path for path in kept if "compute_logs" not in path.parts] == []


@dataclass
class UnderWay:
    """A run whose newest step has begun and cannot go on."""

    run: subprocess.Popen[bytes]
    step: str
    worker: Worker


@contextmanager
def under_way(cluster: Cluster) -> Iterator[UnderWay]:
    """A run of `daily` that waits for a table inside the block."""
    with (
        psycopg.connect(cluster.ops_url) as holder,
        psycopg.connect(cluster.ops_url, autocommit=True) as watcher,
    ):
        holder.execute("LOCK TABLE bronze_days IN ACCESS EXCLUSIVE MODE")
        run = cluster.start("daily", *DAYS)
        waiting = (
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        until(lambda: bool(watcher.execute(waiting).fetchall()))
        step, name = cluster.executions()[-1]
        yield UnderWay(run, step, next(w for w in cluster.workers if w.name == name))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


@pytest.fixture
def archived(cluster: Cluster) -> Cluster:
    """The twin with its archive written and two workers that build."""
    archive = cluster.add_worker(ARCHIVE_QUEUE, "archive-1")
    assert cluster.run("archive", HOUR_KEY, HOUR_KEY) is SUCCESS
    archive.stop()
    for name in ("build-1", "build-2"):
        cluster.add_worker(BUILD_QUEUE, name)
    return cluster


@pytest.mark.fault
@pytest.mark.parametrize("end", [Worker.lose, Worker.kill], ids=["machine", "parent"])
def test_a_step_of_a_lost_worker_goes_to_another(
    farmyard: Farmyard, archived: Cluster, end: Callable[[Worker], None]
) -> None:
    """The parent's loss leaves its child at work: two build the same at once."""
    with under_way(archived) as lost:
        end(lost.worker)
    assert lost.run.wait(RUN_TIMEOUT_S) == 0
    assert archived.last_run().status is SUCCESS
    executed = [worker for step, worker in archived.executions() if step == lost.step]
    assert sorted(executed) == ["build-1", "build-2"]
    assert lake_bytes(archived.store) == in_one_process(farmyard)


@pytest.mark.fault
def test_a_step_that_ends_its_process_fails_the_run(farmyard: Farmyard, archived: Cluster) -> None:
    """It is not delivered again: out of memory here would be out of memory there."""
    with under_way(archived) as lost:
        os.kill(lost.worker.child, signal.SIGKILL)
    assert lost.run.wait(RUN_TIMEOUT_S) != 0
    assert archived.last_run().status is dg.DagsterRunStatus.FAILURE
    assert archived.run("daily", *DAYS) is SUCCESS
    assert lake_bytes(archived.store) == in_one_process(farmyard)


@pytest.mark.fault
def test_a_broker_that_restarts_fails_the_run_and_not_the_workers(
    farmyard: Farmyard, archived: Cluster, rabbitmq: RabbitServer
) -> None:
    """What was under way is delivered and built again, beside the next run."""
    with under_way(archived) as lost:
        rabbitmq.kill()
        rabbitmq.start()
        assert lost.run.wait(RUN_TIMEOUT_S) != 0
    assert archived.last_run().status is dg.DagsterRunStatus.FAILURE
    assert archived.run("daily", *DAYS) is SUCCESS
    assert lake_bytes(archived.store) == in_one_process(farmyard)
