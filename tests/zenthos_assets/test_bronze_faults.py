"""What bronze goes through: kills, rivals, a store that fails, damaged objects, other fields."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest

from tests.conftest import ROOT
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from tests.zenthos_assets.failing_store import FailingStore
from tests.zenthos_assets.test_bronze import DAY, HOUR, archived, payloads, waiting
from zenthos_assets.bronze import codec, outbox
from zenthos_assets.bronze.readings import Parsed
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_core import lake
from zenthos_core.errors import ArchiveError
from zenthos_core.topics import MessageType


def kill_an_archive(yard: Farmyard, when: str) -> None:
    arguments = (yard.ops_url, str(yard.store.root), "telemetry", HOUR.isoformat(), when)
    done = subprocess.run(
        [sys.executable, "-m", "tests.zenthos_assets.killed_archive", *arguments],
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def read(yard: Farmyard, key: str) -> Parsed:
    return read_telemetry(yard.store.get(lake.BRONZE, key))


def objects(yard: Farmyard) -> int:
    return int(yard.execute("SELECT count(*) FROM bronze_objects")[0][0])


@pytest.mark.fault
@pytest.mark.parametrize("when", ["written", "read_back"])
def test_killed_between_write_and_commit_twice(farmyard: Farmyard, when: str) -> None:
    sent = payloads(40)
    farmyard.receive(sent)
    for _ in range(2):
        kill_an_archive(farmyard, when)
        assert (waiting(farmyard), objects(farmyard)) == (40, 0)
        assert len(list(farmyard.store.keys(lake.BRONZE))) == 1
    farmyard.receive(payloads(3, DAY + timedelta(hours=5)))
    assert farmyard.run("archive", HOUR_KEY).success
    assert archived(farmyard) == [*sent, *payloads(3, DAY + timedelta(hours=5))]
    assert (waiting(farmyard), objects(farmyard)) == (0, 1)


@pytest.mark.fault
def test_killed_after_the_commit(farmyard: Farmyard) -> None:
    sent = payloads(40)
    farmyard.receive(sent)
    kill_an_archive(farmyard, "committed")
    assert (waiting(farmyard), objects(farmyard)) == (0, 1)
    assert farmyard.run("archive", HOUR_KEY).success
    assert archived(farmyard) == sent
    assert objects(farmyard) == 1


def test_two_runs_of_one_hour_at_once(farmyard: Farmyard) -> None:
    sent = payloads(300)
    farmyard.receive(sent)

    def archive(run_id: str) -> int:
        with farmyard.platform.ops() as connection:
            parts = outbox.archive_hour(
                connection, farmyard.store, "telemetry", HOUR, run_id=run_id, limit=100
            )
            return sum(part.row_count for part in parts)

    with ThreadPoolExecutor(2) as executor:
        counts = list(executor.map(archive, ["one", "two"]))
    assert sorted(counts) == [0, 300]
    assert archived(farmyard) == sent
    assert waiting(farmyard) == 0


def test_a_store_that_fails_at_any_call_loses_and_doubles_nothing(farmyard: Farmyard) -> None:
    sent: list[bytes] = []
    for fails_at in range(20):
        batch = payloads(5, DAY + timedelta(hours=fails_at))
        farmyard.receive(batch)
        sent += batch
        store = FailingStore(farmyard.store.root, fails_at)
        with farmyard.platform.ops() as connection:
            parts = outbox.archive_hour(connection, store, "telemetry", HOUR, run_id="r")
            with suppress(OSError):
                list(parts)
            if not store.failed:
                break
            assert waiting(farmyard) + len(archived(farmyard)) == len(sent)
    else:
        pytest.fail("the store was called more than 20 times")
    assert archived(farmyard) == sent
    assert waiting(farmyard) == 0


def test_a_truncated_object_fails_the_check_and_names_itself(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(5))
    assert farmyard.run("archive", HOUR_KEY).success
    [key] = farmyard.store.keys(lake.BRONZE)
    whole = farmyard.store.get(lake.BRONZE, key)
    farmyard.store.put(lake.BRONZE, key, whole[: len(whole) // 2])
    assert not farmyard.run("archive", HOUR_KEY).success
    with pytest.raises(ArchiveError, match="not a whole Parquet object"):
        read(farmyard, key)
    farmyard.store.put(lake.BRONZE, key, whole)
    assert farmyard.run("archive", HOUR_KEY).success
    assert len(read(farmyard, key).readings) == 5


def test_fields_gained_lost_and_retyped_are_archived_as_they_came(farmyard: Farmyard) -> None:
    plain = json.loads(reading("soil-1", DAY))
    changed = [
        plain,
        {**plain, "gained": {"deep": [1, "x", None]}},
        {name: value for name, value in plain.items() if name != "firmware_version"},
        {**plain, "sensors": {"soil_moisture": "wet"}},
        {**plain, "timestamp": str(plain["timestamp"])},
    ]
    sent = [json.dumps(message).encode() for message in changed]
    farmyard.receive(sent)
    assert farmyard.run("archive", HOUR_KEY).success
    assert archived(farmyard) == sent
    [key] = farmyard.store.keys(lake.BRONZE)
    parsed = read(farmyard, key)
    assert (len(parsed.readings), len(parsed.malformed)) == (3, 2)
    assert set(parsed.malformed["reason"]) == {"wrong_type"}


@pytest.mark.parametrize("kind", MessageType)
def test_every_type_is_shredded(farmyard: Farmyard, kind: MessageType) -> None:
    plain = json.loads(reading("soil-1", DAY))
    sent = [json.dumps({**plain, "level": "info", "message": f"n {n}"}).encode() for n in range(9)]
    farmyard.receive(sent, message_type=kind)
    assert farmyard.run("archive", HOUR_KEY).success
    [key] = farmyard.store.keys(lake.BRONZE)
    data = farmyard.store.get(lake.BRONZE, key)
    assert codec.decode(data)["payload"].to_list() == sent
    assert codec.decode(data)["received_at"].unique().to_list() == [RECEIVED]
    assert codec.open_object(data).read(columns=["payload"])["payload"].null_count == 9
