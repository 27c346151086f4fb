"""A fleet that publishes while something fails, and the exact comparison afterwards.

What counts as published is what the broker has acknowledged. Rules of the comparison:

1. Each message stands once in the table that its type and age call for, under the time that its
   clock calls for, and no other message stands there.
2. The archive, made by bronze itself, holds the topic and payload of each published message that
   decodes, byte for byte, as often as it was published or redelivered, and nothing else.
3. The quarantine holds the bytes of each one that does not, in one row that counts.
4. The ledger says the same: what is stored is what is in the tables, by device; stored, duplicate
   and rate_limited are the rows of the archive; quarantined are the occurrences.
"""

import itertools
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psycopg

from tests.ingest.devices import PublishingDevice
from tests.ingest.messages import inference, log, status, telemetry, topic
from tests.servers import MosquittoServer
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.outbox import archive_hour
from zenthos_core import lake
from zenthos_core.blobs import FolderStore

PAUSE_S = 0.02
DEADLINE_S = 120.0
SETTLED_S = 3.0
HOT = "telemetry_hot"
COLD = "cold_messages"
QUARANTINED = "quarantine"
TABLES = (HOT, "inference_results", "device_status", "device_logs", COLD)


class Sent(NamedTuple):
    """A message as it was published, and where it belongs."""

    table: str
    device_id: str
    message_id: str
    topic: bytes
    payload: bytes
    time: float | None = None
    """What it is stored under; None where that is the time of receipt."""


Messages = Callable[[str, random.Random], Iterator[Sent]]
"""What a device publishes, without end."""


def reading(device_id: str, message_id: str | None = None, **changes: object) -> Sent:
    """A reading, of this moment where the changes do not say otherwise."""
    message_id = message_id or str(uuid.uuid4())
    fields: dict[str, object] = {"timestamp": time.time()} | changes
    payload = telemetry(message_id=message_id, device_id=device_id, **fields)
    at = fields["timestamp"]
    return Sent(
        HOT,
        device_id,
        message_id,
        topic(device_id=device_id),
        payload,
        at if isinstance(at, float) else None,
    )


def all_types(device_id: str, random: random.Random) -> Iterator[Sent]:
    """Readings, and now and then a prediction, a status or a log line."""
    others = (
        ("inference_results", "inference", inference),
        ("device_status", "status", status),
        ("device_logs", "logs", log),
    )
    while True:
        if random.random() < 0.7:
            yield reading(device_id)
            continue
        table, kind, make = random.choice(others)
        message_id, at = str(uuid.uuid4()), time.time()
        payload = make(message_id=message_id, device_id=device_id, timestamp=at)
        yield Sent(table, device_id, message_id, topic(kind, device_id), payload, at)


class Load:
    """Publishes while the block runs; afterwards `published` is what the broker has taken."""

    def __init__(
        self,
        server: MosquittoServer,
        devices: Sequence[str],
        messages: Messages = all_types,
        *,
        per_s: int = 1_500,
    ) -> None:
        self.published: list[Sent] = []
        self._burst = max(1, round(per_s * PAUSE_S / len(devices)))
        self._messages = messages
        self._stopping = threading.Event()
        self._devices = {name: PublishingDevice(server, name) for name in devices}
        self._threads = [threading.Thread(target=self._publish, args=[d]) for d in devices]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for device in self._devices.values():
            self.published += [sent for _, sent in device.acknowledged]

    def _publish(self, device_id: str) -> None:
        messages = enumerate(self._messages(device_id, random.Random(device_id)))
        with self._devices[device_id] as device:
            while not self._stopping.wait(PAUSE_S):
                for number, sent in itertools.islice(messages, self._burst):
                    device.publish(sent.topic, sent.payload, (number, sent))
            device.flush()


def publish_all(server: MosquittoServer, sent: Iterable[Sent]) -> list[Sent]:
    """Publish these in their order, each by its device; returns once all are acknowledged."""
    published = list(sent)
    names = {message.device_id for message in published}
    with ExitStack() as stack:  # connected first: what is published before may be overtaken
        devices = {n: stack.enter_context(PublishingDevice(server, n)) for n in names}
        for message in published:
            devices[message.device_id].publish(message.topic, message.payload)
        for device in devices.values():
            device.flush()
    return published


def await_stored(url: str, published: Sequence[Sent]) -> None:
    """Wait until all is stored and nothing more arrives, redelivered copies included."""
    expected = len(_named(published))
    poison = sum(sent.table == QUARANTINED for sent in published)
    deadline = time.monotonic() + DEADLINE_S
    before, since = None, time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            now = connection.execute(
                "SELECT coalesce(sum(stored), 0)::int, coalesce(sum(quarantined), 0)::int,"
                " coalesce(sum(received), 0)::int FROM ledger"
            ).fetchone()
            assert now is not None
            if now != before:
                before, since = now, time.monotonic()
            complete = now[0] >= expected and now[1] >= poison
            if complete and time.monotonic() > since + SETTLED_S:
                return
            if time.monotonic() > deadline:
                return  # the comparison says what is missing
            time.sleep(0.1)


def assert_exact(
    url: str, published: Sequence[Sent], folder: Path, *, redelivered: bool = True
) -> None:
    """Compare by the rules above; without redelivery, no copy may be there that was not sent."""
    await_stored(url, published)
    with psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as connection:
        _compare_tables(connection, published)
        _compare_ledger(connection, published)
        archived = archive(connection, FolderStore(folder / "bronze"))
        _compare_bytes(connection, published, archived, redelivered=redelivered)


def archive(connection: psycopg.Connection, store: FolderStore) -> Counter[tuple[bytes, bytes]]:
    """Archive the whole outbox; returns topics and payloads as they then stand in Parquet."""
    hours = connection.execute(
        "SELECT DISTINCT message_type, date_trunc('hour', received_at) FROM raw_messages"
    ).fetchall()
    archived: Counter[tuple[bytes, bytes]] = Counter()
    for kind, hour in hours:
        for part in archive_hour(connection, store, kind, hour, run_id="test"):
            frame = codec.decode(store.get(lake.BRONZE, part.object_key))
            archived.update(
                (topic.encode(), payload) for topic, payload in frame["topic", "payload"].rows()
            )
    assert connection.execute("SELECT count(*) FROM raw_messages").fetchone() == (0,)
    return archived


def _named(published: Iterable[Sent]) -> dict[tuple[str, str], Sent]:
    """The messages that are stored, by what names each; the first one of a name counts."""
    named: dict[tuple[str, str], Sent] = {}
    for sent in published:
        if sent.table != QUARANTINED:
            named.setdefault((sent.device_id, sent.message_id), sent)
    return named


def _compare_tables(connection: psycopg.Connection, published: Sequence[Sent]) -> None:
    named = _named(published)
    for table in TABLES:
        expected = Counter(name for name, sent in named.items() if sent.table == table)
        rows = connection.execute(f"SELECT device_id, message_id::text FROM {table}").fetchall()
        stored = Counter(map(tuple, rows))
        assert not expected - stored, f"lost: {_few(expected - stored)} from {table}"
        assert not stored - expected, f"doubled or made up: {_few(stored - expected)} in {table}"
    for table in TABLES[:-1]:
        _compare_times(connection, table, named)


def _compare_times(
    connection: psycopg.Connection, table: str, named: dict[tuple[str, str], Sent]
) -> None:
    rows = connection.execute(
        "SELECT device_id, message_id::text, extract(epoch FROM time)::float8,"
        f" clock_suspect, time = received_at FROM {table}"
    )
    for device_id, message_id, at, suspect, by_receipt in rows:
        sent = named[device_id, message_id]
        if sent.time is None:
            assert (suspect, by_receipt) == (True, True), sent
        else:
            assert suspect is False, sent
            assert abs(at - sent.time) < 2e-6, sent


def _compare_ledger(connection: psycopg.Connection, published: Sequence[Sent]) -> None:
    stored = dict(
        connection.execute(
            "SELECT device_id, sum(stored)::int FROM ledger GROUP BY 1 HAVING sum(stored) <> 0"
        ).fetchall()
    )
    assert stored == Counter(device_id for device_id, _ in _named(published))
    row = connection.execute(
        "SELECT sum(received)::int, sum(stored + duplicate + rate_limited)::int,"
        " sum(quarantined)::int, (SELECT count(*) FROM raw_messages)::int,"
        " (SELECT coalesce(sum(occurrences), 0) FROM quarantine)::int FROM ledger"
    ).fetchone()
    assert row is not None
    received, kept, quarantined, in_outbox, occurrences = row
    assert received >= len(published)
    assert received == kept + quarantined
    assert (kept, quarantined) == (in_outbox, occurrences)


def _compare_bytes(
    connection: psycopg.Connection,
    published: Sequence[Sent],
    archived: Counter[tuple[bytes, bytes]],
    *,
    redelivered: bool,
) -> None:
    good = Counter((s.topic, s.payload) for s in published if s.table != QUARANTINED)
    bad = Counter((s.topic, s.payload) for s in published if s.table == QUARANTINED)
    rows = connection.execute("SELECT topic, payload, occurrences FROM quarantine").fetchall()
    set_aside = Counter({(topic.encode(), payload): n for topic, payload, n in rows})
    assert len(set_aside) == len(rows), "a message that comes again has a row of its own"
    for expected, found in ((good, archived), (bad, set_aside)):
        assert not expected - found, f"bytes are missing: {_few(expected - found)}"
        assert found.keys() == expected.keys(), "bytes that nobody published"
        assert redelivered or found == expected, f"copies too many: {_few(found - expected)}"


def _few(counter: Counter[tuple[object, ...]]) -> str:
    return f"{counter.total()} such as {list(counter.items())[:3]}"
