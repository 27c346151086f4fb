"""A Dagster on Postgres whose steps Celery workers execute, for a farmyard's twin."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psycopg

from tests.conftest import ROOT
from tests.servers import PostgresServer, RabbitServer, ServerProcess
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_cli.stack.launch import child_command
from zenthos_core.blobs import FolderStore

RUN_TIMEOUT_S = 240


class Worker(ServerProcess):
    """A Celery worker and its child, which executes the steps."""

    def __init__(self, queue: str, name: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        super().__init__(
            child_command(
                [sys.executable, "-m", "zenthos_assets.worker", queue, name],
                death_signal=signal.SIGTERM,
            ),
            log,
            ready=lambda: " ready." in log.read_text(),
            stop_signal=signal.SIGTERM,
            environment=dict(environment),
            start_timeout_s=120,
        )

    @property
    def child(self) -> int:
        """Process id of the child."""
        tasks = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return int(tasks.read_text().split()[-1])

    def lose(self) -> None:
        """End it and its child as the loss of their machine would."""
        os.killpg(self.pid, signal.SIGKILL)
        self.kill()


@dataclass
class Cluster:
    """Databases, lake and instance of their own, copied from those of a farmyard."""

    folder: Path
    environment: dict[str, str]
    ops_url: str
    store: FolderStore
    workers: list[Worker] = field(default_factory=list)

    def add_worker(self, queue: str, name: str) -> Worker:
        """Start one more."""
        worker = Worker(queue, name, self.folder / f"{name}.log", self.environment)
        self.workers.append(worker)
        worker.start()
        return worker

    def start(self, job: str, first: str, last: str) -> subprocess.Popen[bytes]:
        """Begin a run of a job in a process of its own."""
        tags = json.dumps({RANGE_START: first, RANGE_END: last})
        command = ["-m", "zenthos_assets.definitions", "-j", job, "--tags", tags]
        with (self.folder / "runs.log").open("ab") as log:
            return subprocess.Popen(
                child_command(
                    [sys.executable, "-m", "dagster", "job", "execute", *command],
                    death_signal=signal.SIGTERM,
                ),
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, job: str, first: str, last: str) -> dg.DagsterRunStatus:
        """Run a job to its end."""
        self.start(job, first, last).wait(RUN_TIMEOUT_S)
        return self.last_run().status

    def last_run(self) -> dg.DagsterRun:
        """The newest run."""
        with self.instance() as instance:
            return instance.get_runs(limit=1)[0]

    def executions(self) -> list[tuple[str, str]]:
        """(step, worker) of the newest run, in the order of their beginning."""
        with self.instance() as instance:
            run_id = instance.get_runs(limit=1)[0].run_id
            logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        events = [log.get_dagster_event() for log in logs]
        return [
            (str(event.step_key), str(worker.value).split("@")[0])
            for event in events
            if (worker := event.engine_event_data.metadata.get("Celery worker"))
        ]

    def instance(self) -> dg.DagsterInstance:
        """Its Dagster instance."""
        return dg.DagsterInstance.from_config(str(self.folder))

    def stop(self) -> None:
        """Stop the workers."""
        for worker in self.workers:
            worker.stop()


def make_cluster(
    folder: Path, server: PostgresServer, rabbitmq: RabbitServer, templates: Mapping[str, str]
) -> Cluster:
    """A cluster without workers, on copies of the databases (setting to URL)."""
    folder.mkdir()
    (folder / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    urls = {name: _copy(server, url.rsplit("/", 1)[1]) for name, url in templates.items()}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(folder),
        **urls,
        "ZENTHOS_DAGSTER_DATABASE_URL": _copy(server, "template1"),
        "ZENTHOS_BLOB_URL": (folder / "blobs").as_uri(),
        "ZENTHOS_SHARDS": "2",
        "ZENTHOS_EXECUTOR": "celery",
        "ZENTHOS_CELERY_BROKER_URL": rabbitmq.url,
    }
    store = FolderStore(folder / "blobs")
    return Cluster(folder, environment, urls["ZENTHOS_DATABASE_URL"], store)


def _copy(server: PostgresServer, template: str) -> str:
    name = f"cluster_{secrets.token_hex(4)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.url(name)
