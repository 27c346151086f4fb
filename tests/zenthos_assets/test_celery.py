"""Steps on two Celery workers, by a real RabbitMQ: the same bytes as in one process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.servers import PostgresServer, RabbitServer
from tests.zenthos_assets.cluster import Cluster, Worker, make_cluster
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets.executors import ARCHIVE_QUEUE, BUILD_QUEUE
from zenthos_core import lake
from zenthos_core.blobs import FolderStore

DAYS = ("2026-11-10", "2026-11-12")
SUCCESS = dg.DagsterRunStatus.SUCCESS
SILVER_STEP = "silver__telemetry_cleaned"


@pytest.fixture
def cluster(
    farmyard: Farmyard,
    postgres: PostgresServer,
    rabbitmq: RabbitServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    """A twin of the farmyard, both with the same messages in their outbox."""
    start = RECEIVED.replace(day=10, hour=0, minute=0)
    times = [start + timedelta(hours=hour) for hour in range(72)]
    farmyard.receive(reading(f"soil-{n}", at) for at in times for n in (1, 2))
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
    buckets = (lake.BRONZE, lake.SILVER, lake.GOLD)
    return {(b, key): store.get(b, key) for b in buckets for key in store.keys(b)}


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
