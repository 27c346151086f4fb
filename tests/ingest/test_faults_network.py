"""The network between ingest and its servers is cut, or goes silent: nothing lost or doubled."""

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ingest.connections import Connector
from tests.conftest import migrated_database
from tests.ingest.conftest import DEVICES, IngestProcess
from tests.ingest.load import Load, all_types, assert_exact, publish_all, reading
from tests.ingest.proxy import Proxy
from tests.servers import MosquittoServer, PostgresServer
from tests.waiting import wait_until
from zenthos_core.database import Database

pytestmark = pytest.mark.fault

DATABASE_TIMEOUT_S = 3


@pytest.fixture
def to_broker(fleet_broker: MosquittoServer) -> Iterator[Proxy]:
    """The network to the broker."""
    with Proxy(fleet_broker.host, fleet_broker.port) as proxy:
        yield proxy


@pytest.fixture
def to_database(ops_url: str, database: psycopg.Connection) -> Iterator[Proxy]:
    """The network to Postgres, which knows the devices."""
    url = urlsplit(ops_url)
    assert url.hostname is not None
    assert url.port is not None
    with Proxy(url.hostname, url.port) as proxy:
        yield proxy


@pytest.fixture
def ingest(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_broker: Proxy,
    to_database: Proxy,
) -> Iterator[IngestProcess]:
    """The service, with both networks between."""
    url = urlsplit(ops_url)
    through = url._replace(netloc=url.netloc.replace(str(url.port), str(to_database.port)))
    process = IngestProcess(
        tmp_path,
        through.geturl(),
        fleet_broker,
        ZENTHOS_MQTT_PORT=str(to_broker.port),
        ZENTHOS_INGEST_DATABASE_TIMEOUT_S=str(DATABASE_TIMEOUT_S),
    )
    process.start()
    yield process
    process.stop()


@pytest.mark.usefixtures("ingest")
def test_cuts_to_the_broker(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, to_broker: Proxy
) -> None:
    pauses, cuts = random.Random(2), 0
    with Load(fleet_broker, DEVICES) as load:
        while cuts < 12:
            time.sleep(pauses.uniform(0.1, 0.6))
            cuts += to_broker.cut()
    assert_exact(ops_url, load.published, tmp_path)


@pytest.mark.usefixtures("ingest")
def test_cuts_within_a_packet(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, to_broker: Proxy
) -> None:
    sizes = random.Random(3)
    with Load(fleet_broker, DEVICES) as load:
        for _ in range(15):
            to_broker.cut_within(sizes.randrange(1, 20_000))
            time.sleep(0.6)
    assert_exact(ops_url, load.published, tmp_path)


def test_a_silent_network_to_the_broker(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_broker: Proxy,
    ingest: IngestProcess,
) -> None:
    with Load(fleet_broker, DEVICES, per_s=300) as load:
        time.sleep(1)
        assert to_broker.silence() == 1
        wait_until(lambda: "the broker does not answer" in ingest.log.read_text())
        wait_until(ingest.is_ready)
        time.sleep(1)
    assert_exact(ops_url, load.published, tmp_path)


@pytest.mark.usefixtures("ingest")
def test_cuts_to_the_database(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, to_database: Proxy
) -> None:
    pauses, cuts = random.Random(4), 0
    with Load(fleet_broker, DEVICES) as load:
        while cuts < 20:
            time.sleep(pauses.uniform(0.1, 0.6))
            cuts += to_database.cut()
    assert_exact(ops_url, load.published, tmp_path)


def test_a_silent_network_to_the_database(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_database: Proxy,
    ingest: IngestProcess,
) -> None:
    with Load(fleet_broker, DEVICES) as load:
        for _ in range(3):
            time.sleep(1)
            assert to_database.silence() >= 1
            time.sleep(2 * DATABASE_TIMEOUT_S)
    assert "did not answer" in ingest.log.read_text()
    assert_exact(ops_url, load.published, tmp_path)


def test_a_network_that_falls_silent_in_the_midst_of_a_copy(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_database: Proxy,
    ingest: IngestProcess,
) -> None:
    ingest.stop()
    readings = publish_all(fleet_broker, [reading(DEVICES[0]) for _ in range(5_000)])
    to_database.silence_within(500_000)
    ingest.start()
    assert_exact(ops_url, readings, tmp_path)
    assert "ended server process" in ingest.log.read_text()


@pytest.mark.parametrize("end", [IngestProcess.stop, IngestProcess.kill])
def test_one_that_ended_in_the_midst_of_a_copy_to_a_silent_network(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_database: Proxy,
    ingest: IngestProcess,
    end: Callable[[IngestProcess], None],
) -> None:
    """What its connection holds at the server is in the way of the next one, until that ends it."""
    ingest.stop()
    messages = list(islice(all_types(DEVICES[0], random.Random(5)), 1_000))
    publish_all(fleet_broker, messages)
    to_database.silence_within(1_000, after=b"COPY inference_results")
    ingest.start()
    wait_until(lambda: to_database.silent == 1)
    end(ingest)
    ingest.start()
    assert_exact(ops_url, messages, tmp_path)
    assert "of a predecessor" in ingest.log.read_text()


def test_a_worker_ends_what_its_predecessor_has_left_in_its_own_database_alone(
    postgres: PostgresServer,
) -> None:
    """Two installations may share a cluster, each with a worker of id 1."""
    urls = [migrated_database(postgres, Database.OPS) for _ in range(2)]
    ours, theirs = (Connector(url, 5, "1")() for url in urls)
    with Connector(urls[0], 5, "1")() as successor, theirs:
        assert theirs.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            ours.execute("SELECT 1")
        assert successor.execute("SELECT 1").fetchone() == (1,)


def test_it_stops_while_the_database_is_silent(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    to_database: Proxy,
    ingest: IngestProcess,
) -> None:
    with Load(fleet_broker, DEVICES) as load:
        time.sleep(1)
        to_database.silence()
        time.sleep(0.5)
        began = time.monotonic()
        ingest.stop()
        assert time.monotonic() < began + 4 * DATABASE_TIMEOUT_S
    ingest.start()
    assert_exact(ops_url, load.published, tmp_path)
