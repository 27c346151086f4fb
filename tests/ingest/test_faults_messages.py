"""What a fleet may send at its worst, under kills: nothing lost, nothing doubled."""

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.ingest.conftest import DEVICES, IngestProcess
from tests.ingest.load import COLD, QUARANTINED, Load, Sent, assert_exact, reading
from tests.ingest.messages import topic
from tests.servers import MosquittoServer
from tests.waiting import wait_until

pytestmark = pytest.mark.fault

DAY_S = 86_400
WRONG_CLOCKS = (1_009_843_200, 2_493_072_000)
"""2002 and 2049, as integers: stored under the time of receipt."""


def bad_clocks(device_id: str, random: random.Random) -> Iterator[Sent]:
    """Half of the readings carry a time that cannot be."""
    while True:
        wrong = random.random() < 0.5
        yield reading(device_id, **{"timestamp": random.choice(WRONG_CLOCKS)} if wrong else {})


def duplicates(device_id: str, random: random.Random) -> Iterator[Sent]:
    """One in ten comes again as it was, and one in ten under another id."""
    recent: list[Sent] = []
    while True:
        dice = random.random()
        if recent and dice < 0.1:
            yield random.choice(recent)
            continue
        sent = reading(device_id)
        if recent and dice < 0.2:
            like, message_id = random.choice(recent), str(uuid.uuid4())
            payload = like.payload.replace(like.message_id.encode(), message_id.encode())
            sent = like._replace(message_id=message_id, payload=payload)
        recent = [*recent[-200:], sent]
        yield sent


def days_late(device_id: str, random: random.Random) -> Iterator[Sent]:
    """One in ten is days old, some older than the hot window; those come again, too."""
    cold: list[Sent] = []
    while True:
        dice = random.random()
        if cold and dice < 0.03:
            yield random.choice(cold)
        elif dice < 0.1:
            days = random.choice((1, 3, 6, 9, 40))
            sent = reading(device_id, timestamp=time.time() - days * DAY_S)
            if days > 7:
                sent = sent._replace(table=COLD, time=None)
                cold.append(sent)
            yield sent
        else:
            yield reading(device_id)


def with_poison(device_id: str, random: random.Random) -> Iterator[Sent]:
    """The same bytes that are no message, again and again among good ones."""
    poison = Sent(QUARANTINED, device_id, "", topic(device_id=device_id), b'{"sensors": ')
    while True:
        yield poison if random.random() < 0.8 else reading(device_id)


@pytest.mark.parametrize("messages", [bad_clocks, duplicates, days_late, with_poison])
def test_through_kills(
    tmp_path: Path,
    ops_url: str,
    fleet_broker: MosquittoServer,
    ingest: IngestProcess,
    messages: object,
) -> None:
    with Load(fleet_broker, DEVICES, messages) as load:  # type: ignore[arg-type]
        for _ in range(4):
            time.sleep(0.8)
            ingest.kill()
            ingest.start()
    assert_exact(ops_url, load.published, tmp_path)
    with psycopg.connect(ops_url) as connection:
        poisoned = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    assert poisoned == (len(DEVICES) if messages is with_poison else 0,)


def was_taken_over(worker: IngestProcess) -> bool:
    said = worker.log.read_text()
    return "another worker has connected" in said or "lost the broker" in said


@pytest.mark.timeout(300)
def test_two_workers_of_one_id(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = IngestProcess(folder, ops_url, fleet_broker)
    try:
        with Load(fleet_broker, DEVICES) as load:
            time.sleep(1)
            second.start()
            wait_until(lambda: all(was_taken_over(worker) for worker in (ingest, second)))
        assert_exact(ops_url, load.published, tmp_path)
    finally:
        second.stop()
