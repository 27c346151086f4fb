"""A registered fleet and the real service, as tests of ingest need them."""

import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from signal import SIGTERM

import psycopg
import pytest

from ingest.batch import build_batch
from ingest.decode import Registry
from ingest.limits import Bucket, RateLimiter
from ingest.registry import DeviceRegistry
from ingest.writer import Outcome, Writer
from tests.conftest import ROOT
from tests.ingest.devices import PASSWORD
from tests.ingest.messages import DEVICE, FARM, MODEL
from tests.servers import MosquittoServer, ServerProcess, find_free_port
from zenthos_core.database import connect
from zenthos_core.mqtt import Publish

DEVICES = (DEVICE, "field-02", "field-03")
HOT_DAYS = 7
Write = Callable[..., Outcome]


UNLIMITED = {
    "ZENTHOS_INGEST_RATE_PER_S": "1e6",
    "ZENTHOS_INGEST_BURST": "1e6",
}
"""A handful of devices, where a fleet would send as much."""


class IngestProcess(ServerProcess):
    """`python -m ingest` on servers of the test's choice."""

    def __init__(
        self, folder: Path, database_url: str, mosquitto: MosquittoServer, **environment: str
    ) -> None:
        self.port = find_free_port()
        self.log = folder / "ingest.log"
        super().__init__(
            [sys.executable, "-m", "ingest"],
            self.log,
            ready=self.is_ready,
            stop_signal=SIGTERM,
            environment={
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(ROOT),
                "ZENTHOS_DATABASE_URL": database_url,
                "ZENTHOS_MQTT_HOST": mosquitto.host,
                "ZENTHOS_MQTT_PORT": str(mosquitto.port),
                "ZENTHOS_MQTT_USERNAME": mosquitto.username,
                "ZENTHOS_MQTT_PASSWORD": mosquitto.password,
                "ZENTHOS_INGEST_METRICS_PORT": str(self.port),
                "ZENTHOS_INGEST_SPOOL_DIR": str(folder / "spool"),
                **UNLIMITED,
                **environment,
            },
        )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self) -> bool:
        """Whether it says that it is connected to broker and database."""
        try:
            return self.get("/health/ready")[0] == 200
        except OSError:
            return False


def register(connection: psycopg.Connection, *device_ids: str) -> None:
    """Put devices on the one farm of the tests."""
    connection.execute(
        "INSERT INTO farms (id, name) VALUES (%s, 'test') ON CONFLICT DO NOTHING", [FARM]
    )
    for device_id in device_ids:
        connection.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type)"
            " VALUES (%s, %s, %s, 'soil')",
            [device_id, FARM, MODEL],
        )


@pytest.fixture
def database(ops_url: str) -> Iterator[psycopg.Connection]:
    """The operational database with three devices, in autocommit and UTC."""
    with psycopg.connect(ops_url, autocommit=True, options="-c timezone=UTC") as connection:
        register(connection, *DEVICES)
        yield connection


@pytest.fixture
def fleet_broker(mosquitto: MosquittoServer) -> MosquittoServer:
    """A broker that knows the devices, each by its id and the same word as password."""
    mosquitto.add_accounts(dict.fromkeys((*DEVICES, "stranger"), PASSWORD))
    return mosquitto


@pytest.fixture
def ingest(
    tmp_path: Path, ops_url: str, database: psycopg.Connection, fleet_broker: MosquittoServer
) -> Iterator[IngestProcess]:
    """The running service."""
    process = IngestProcess(tmp_path, ops_url, fleet_broker)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def registry(database: psycopg.Connection, ops_url: str) -> Registry:
    devices = DeviceRegistry(partial(connect, ops_url, application="test", autocommit=True))
    known = devices.refresh()
    devices.close()
    return known


@pytest.fixture
def write(ops_url: str, registry: Registry) -> Write:
    """Store messages in one transaction."""
    writer = Writer(connect(ops_url, application="test", autocommit=True), "1")

    def write(*messages: Publish, burst: float | None = None) -> Outcome:
        bucket = burst and Bucket(per_s=1, burst=burst)
        limiter = RateLimiter(bucket, bucket) if bucket else None
        batch = build_batch(messages, registry, HOT_DAYS, limiter)
        return writer.write(batch, {m.received_at for m in messages})

    return write
