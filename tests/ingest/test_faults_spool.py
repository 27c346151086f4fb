"""The database is away for long while the spool is killed, full or damaged: nothing lost."""

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from ingest.spool import pack
from tests.ingest.conftest import DEVICES, IngestProcess, register
from tests.ingest.load import Load, assert_exact, publish_all, reading
from tests.ingest.messages import publish
from tests.servers import MosquittoServer, PostgresServer
from tests.waiting import wait_until

pytestmark = pytest.mark.fault

Start = Callable[..., IngestProcess]


@pytest.fixture
def start_ingest(
    tmp_path: Path, own_ops_url: str, fleet_broker: MosquittoServer
) -> Iterator[Start]:
    """Starts the service, which spools at once, on a Postgres of the test's own."""
    with psycopg.connect(own_ops_url) as connection:
        register(connection, *DEVICES)
    processes: list[IngestProcess] = []

    def start(**environment: str) -> IngestProcess:
        fast = {"ZENTHOS_INGEST_SPOOL_AFTER_S": "0.3", "ZENTHOS_INGEST_BATCH_MAX": "200"}
        process = IngestProcess(tmp_path, own_ops_url, fleet_broker, **fast | environment)
        processes.append(process)
        process.start()
        return process

    yield start
    for process in processes:
        process.stop()


def spooled_bytes(folder: Path) -> int:
    """What is in the spool of the worker that the tests run."""
    total = 0
    for path in folder.glob("spool/1/*.spool"):
        with suppress(FileNotFoundError):  # replayed just now
            total += path.stat().st_size
    return total


def said(ingest: IngestProcess) -> list[str]:
    """What the service has said."""
    lines = [line for line in ingest.log.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line)["message"] for line in lines]


def connections(ingest: IngestProcess) -> int:
    """How often it has said that it is connected to the broker."""
    return sum("connected to the broker" in message for message in said(ingest))


def test_the_database_is_away_for_long(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest()
    with Load(fleet_broker, DEVICES) as load:
        time.sleep(0.5)
        own_postgres.stop()
        wait_until(lambda: spooled_bytes(tmp_path) > 200_000)
        assert not ingest.is_ready()
        own_postgres.start()
        wait_until(ingest.is_ready)
    assert_exact(own_ops_url, load.published, tmp_path)
    assert spooled_bytes(tmp_path) == 0


@pytest.mark.timeout(400)
def test_kills_while_spooling_and_while_replaying(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    pauses = random.Random(5)
    ingest = start_ingest()
    with Load(fleet_broker, DEVICES) as load:
        own_postgres.stop()
        for _ in range(8):
            before = spooled_bytes(tmp_path)
            wait_until(lambda before=before: spooled_bytes(tmp_path) > before + 50_000)
            time.sleep(pauses.uniform(0, 0.3))
            ingest.kill()
            ingest.launch()
    assert spooled_bytes(tmp_path) > 400_000
    own_postgres.start()
    replaying = 0
    for _ in range(8):
        ingest.kill()
        connected = connections(ingest)
        ingest.launch()
        wait_until(lambda connected=connected: connections(ingest) > connected)
        time.sleep(pauses.uniform(0, 0.25))
        replaying += spooled_bytes(tmp_path) > 0
    assert replaying >= 2
    ingest.kill()
    ingest.start()
    assert_exact(own_ops_url, load.published, tmp_path)


def test_the_spool_is_at_its_bound(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest(ZENTHOS_INGEST_SPOOL_MAX_MB="1")
    with Load(fleet_broker, DEVICES, per_s=2_500) as load:
        own_postgres.stop()
        wait_until(lambda: any("raise ZENTHOS_INGEST_SPOOL_MAX_MB" in m for m in said(ingest)))
        time.sleep(1)
    assert 2**20 - 100_000 < spooled_bytes(tmp_path) <= 2**20
    own_postgres.start()
    assert_exact(own_ops_url, load.published, tmp_path)
    assert sum("raise ZENTHOS_INGEST_SPOOL_MAX_MB" in m for m in said(ingest)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, in which the spool lies."""
    folder = tmp_path / "spool"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=200", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system takes root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("small_disk")
def test_the_disk_is_full(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest()
    with Load(fleet_broker, DEVICES, per_s=2_500) as load:
        own_postgres.stop()
        wait_until(lambda: any("No space left" in message for message in said(ingest)))
        time.sleep(3)
        segments = len(list(tmp_path.glob("spool/1/*.spool")))
        ingest.kill()
        ingest.launch()
        wait_until(lambda: sum("No space left" in message for message in said(ingest)) == 2)
    assert segments < 5
    own_postgres.start()
    assert_exact(own_ops_url, load.published, tmp_path)
    assert sum("No space left" in message for message in said(ingest)) == 2  # of two processes


def test_a_record_cut_short_on_a_full_disk_holds_up_nothing(
    small_disk: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest()
    own_postgres.stop()
    readings = publish_all(fleet_broker, [reading(DEVICES[0]) for _ in range(300)])
    wait_until(lambda: spooled_bytes(small_disk.parent) > 60_000)
    ingest.kill()
    segment = max(small_disk.glob("1/*.spool"))
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(whole[:100])
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4_096))
    own_postgres.start()
    ingest.start()
    assert_exact(own_ops_url, readings, small_disk.parent)
    assert segment.with_suffix(".damaged").read_bytes() == whole + whole[:100]


def test_what_a_crash_cut_short_comes_again(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest()
    own_postgres.stop()
    readings = publish_all(fleet_broker, [reading(DEVICES[0]) for _ in range(300)])
    wait_until(lambda: spooled_bytes(tmp_path) > 60_000)
    ingest.kill()
    segment = max(tmp_path.glob("spool/1/*.spool"))
    with segment.open("ab") as file:
        file.write(segment.read_bytes()[:100])
    own_postgres.start()
    ingest.start()
    assert_exact(own_ops_url, readings, tmp_path)
    assert segment.with_suffix(".damaged").stat().st_size >= 100
    assert any("100 bytes at the end of spool segment" in message for message in said(ingest))


def test_a_damaged_record_is_set_aside_with_what_follows_it_in_its_segment(
    tmp_path: Path,
    own_postgres: PostgresServer,
    own_ops_url: str,
    fleet_broker: MosquittoServer,
    start_ingest: Start,
) -> None:
    ingest = start_ingest()
    own_postgres.stop()
    readings = [reading(DEVICES[0]) for _ in range(300)]
    for part in (readings[:200], readings[200:]):  # a segment each
        before = spooled_bytes(tmp_path)
        publish_all(fleet_broker, part)
        size = sum(len(pack(publish(sent.payload, sent.topic))) for sent in part)
        wait_until(lambda least=before + size: spooled_bytes(tmp_path) >= least)
        ingest.stop()  # not killed: the broker would send again what it has no answer to
        ingest.launch()
    ingest.kill()
    first, last = sorted(tmp_path.glob("spool/1/*.spool"))
    with first.open("r+b") as file:
        file.seek(first.read_bytes().index(readings[150].payload))
        file.write(b"?")
    kept = [*readings[:150], *readings[200:]]
    own_postgres.start()
    ingest.start()
    assert_exact(own_ops_url, kept, tmp_path)
    aside = first.with_suffix(".damaged").read_bytes()
    assert all(sent.payload in aside for sent in readings[151:200])
    assert any("are no record and are kept in" in message for message in said(ingest))
    assert last.with_suffix(".damaged").exists() is False
