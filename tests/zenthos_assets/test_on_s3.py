"""The lineage with its lake on S3: through errors and kills of the server, nothing lost or doubled.

Compute logs of real runs land there too.
"""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import dagster as dg
import psycopg
import pytest

from tests.servers import MotoServer
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets.bronze.codec import decode
from zenthos_assets.resources import Platform
from zenthos_cli.stack.object_storage import aws_variables, compute_logs
from zenthos_core import lake
from zenthos_core.blobs import BlobStore, store_of
from zenthos_core.blobs.s3 import Place, S3Store
from zenthos_core.errors import BlobStoreError

DAY_KEY = "2026-11-20"
DAY = RECEIVED.replace(hour=0, minute=0)


@pytest.fixture
def yard(farmyard: Farmyard, s3: MotoServer, s3_place: Place) -> Farmyard:
    """The farmyard with its lake on S3."""
    return move_to_s3(farmyard, s3, s3_place)


def move_to_s3(farmyard: Farmyard, server: MotoServer, place: Place) -> Farmyard:
    settings = {
        "BLOB_URL": f"s3://?prefix={place.prefix}",
        "S3_ENDPOINT_URL": server.url,
        "S3_REGION": "eu-west-1",
        "S3_ACCESS_KEY_ID": "test",
        "S3_SECRET_ACCESS_KEY": "test",
    }
    with (Path(farmyard.platform.directory) / ".env").open("a") as file:
        file.writelines(f"ZENTHOS_{name}={value}\n" for name, value in settings.items())
    farmyard.store = store_of(farmyard.platform.settings)
    return farmyard


class FailingStore:
    """A store whose n-th call fails, and every other one works."""

    def __init__(self, store: BlobStore, failing: int) -> None:
        self._store = store
        self._failing = failing
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._failing:
            raise BlobStoreError(f"call {self.calls} failed")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._count()
        self._store.put(bucket, key, data)

    def get(self, bucket: str, key: str) -> bytes:
        self._count()
        return self._store.get(bucket, key)

    def open(self, bucket: str, key: str) -> BinaryIO:
        self._count()
        return self._store.open(bucket, key)

    def exists(self, bucket: str, key: str) -> bool:
        self._count()
        return self._store.exists(bucket, key)

    def keys(self, bucket: str, prefix: str = "") -> Iterator[str]:
        self._count()
        return self._store.keys(bucket, prefix)


_stores: dict[str, BlobStore] = {}


class PlatformOn(Platform):
    """A platform whose lake is the store that a test has put under this name."""

    name: str

    def store(self) -> BlobStore:
        return _stores[self.name]


def platform_on(yard: Farmyard, store: BlobStore) -> Platform:
    name = str(id(store))
    _stores[name] = store
    return PlatformOn(directory=yard.platform.directory, name=name)


def messages(count: int) -> list[bytes]:
    return [
        reading(f"soil-{1 + n % 2}", DAY + timedelta(minutes=n), sensors={"soil_moisture": n / 3})
        for n in range(count)
    ]


def archived_payloads(yard: Farmyard) -> list[bytes]:
    found = []
    for (key,) in yard.execute("SELECT object_key FROM bronze_objects ORDER BY 1"):
        found += decode(yard.store.get(lake.BRONZE, key))["payload"].to_list()
    return sorted(found)


def objects(store: BlobStore) -> dict[str, bytes]:
    """What silver and gold hold, byte for byte."""
    return {
        f"{bucket}/{key}": store.get(bucket, key)
        for bucket in (lake.SILVER, lake.GOLD)
        for key in store.keys(bucket)
    }


def forget_builds(yard: Farmyard) -> None:
    """Let the next run build a day that has not changed."""
    with psycopg.connect(yard.analytics_url) as connection:
        connection.execute("DELETE FROM etl_runs")


def test_archive_and_days_are_built(yard: Farmyard) -> None:
    sent = messages(60)
    yard.receive(sent)
    assert isinstance(yard.platform.store(), S3Store)
    assert yard.run("archive", HOUR_KEY).success
    assert archived_payloads(yard) == sorted(sent)
    assert yard.run("daily", DAY_KEY).success
    assert f"{lake.SILVER}/telemetry_cleaned/2026/11/20.parquet" in objects(yard.store)
    assert yard.query_analytics("SELECT sum(sample_count) FROM telemetry_daily")[0][0] == 60


@pytest.mark.fault
def test_a_store_that_fails_once_loses_and_doubles_nothing(yard: Farmyard) -> None:
    """Each call of an archive fails in turn, each in an hour of its own."""
    for failing in itertools.count(1):
        at = RECEIVED + timedelta(hours=failing)
        yard.receive([reading("soil-1", at, n) for n in range(20)], at=at)
        store = FailingStore(yard.store, failing)
        hour = f"{at:%Y-%m-%d-%H}:00"
        run = yard.run("archive", hour, platform=platform_on(yard, store))
        assert yard.run("archive", hour).success
        if store.calls < failing:
            assert run.success
            break
        assert not run.success
    archived = archived_payloads(yard)
    assert len(archived) == len(set(archived)) == 20 * failing
    assert yard.execute("SELECT count(*) FROM raw_messages") == [(0,)]


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_a_day_whose_store_fails_once_is_built_to_the_same_bytes(yard: Farmyard) -> None:
    yard.receive(messages(40))
    assert yard.run("archive", HOUR_KEY).success
    assert yard.run("daily", DAY_KEY).success
    wanted = objects(yard.store)
    forget_builds(yard)
    counting = FailingStore(yard.store, failing=0)
    assert yard.run("daily", DAY_KEY, platform=platform_on(yard, counting)).success
    for failing in (1, counting.calls // 2, counting.calls):
        forget_builds(yard)
        store = FailingStore(yard.store, failing)
        assert not yard.run("daily", DAY_KEY, platform=platform_on(yard, store)).success
        assert yard.run("daily", DAY_KEY).success
        assert objects(yard.store) == wanted
        assert yard.query_analytics("SELECT sum(sample_count) FROM telemetry_daily")[0][0] == 40


@pytest.mark.fault
def test_a_server_killed_before_the_commit_forgets_nothing(
    farmyard: Farmyard, tmp_path: Path
) -> None:
    """It forgets the object that it has just confirmed: the outbox still has every row."""
    server = MotoServer(tmp_path)
    place = Place("", "own-")
    server.start()
    try:
        S3Store(place, server.access()).create_buckets(lake.BUCKETS)
        yard = move_to_s3(farmyard, server, place)
        sent = messages(30)
        yard.receive(sent)

        class KilledAfterPut(FailingStore):
            def put(self, bucket: str, key: str, data: bytes) -> None:
                super().put(bucket, key, data)
                server.kill()

        store = KilledAfterPut(yard.store, failing=0)
        assert not yard.run("archive", HOUR_KEY, platform=platform_on(yard, store)).success
        assert yard.execute("SELECT count(*) FROM raw_messages") == [(30,)]
        assert yard.execute("SELECT count(*) FROM bronze_objects") == [(0,)]
        server.start()
        S3Store(place, server.access()).create_buckets(lake.BUCKETS)
        assert yard.run("archive", HOUR_KEY).success
        assert archived_payloads(yard) == sorted(sent)
    finally:
        server.stop()


def test_compute_logs_of_a_run_land_beside_the_lake(
    yard: Farmyard, s3_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yard.platform.settings
    for name, value in aws_variables(settings).items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        "telemetry:\n  enabled: false\n" + compute_logs(settings, home / "logs")
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yard.instance = instance
        run = yard.run("archive", HOUR_KEY)
        assert run.success
        keys = list(yard.store.keys(lake.LOGS))
    assert any(f"compute_logs/storage/{run.run_id}/" in key for key in keys)
    logged = b"".join(yard.store.get(lake.LOGS, key) for key in keys if key.endswith(".err"))
    assert b"bronze" in logged


def test_a_folder_keeps_compute_logs_where_dagster_puts_them(farmyard: Farmyard) -> None:
    assert compute_logs(farmyard.platform.settings, Path("/logs")) == ""
