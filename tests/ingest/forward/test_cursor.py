"""The rules of ingest.forward.cursor, on a real Postgres and a real Redis."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ingest.forward import forwarder as forwarding
from ingest.forward.admin import forwarder_states, remove_forwarder
from ingest.forward.cursor import INDEX
from ingest.forward.forwarder import Forwarder
from ingest.forward.redis_streams import RedisStream
from ingest.partitions import Partitions, raw_partition
from tests.ingest.forward.conftest import DEADLINE_S, Outbox, stream_ids
from tests.servers import RedisServer
from tests.waiting import wait_until
from zenthos_assets.bronze.outbox import archive_hour
from zenthos_core.blobs import FolderStore
from zenthos_core.errors import ConflictError, NotFoundError

Start = Callable[[Forwarder], None]
NOWHERE = "redis://127.0.0.1:1"


@pytest.fixture
def redis_sink(redis_server: RedisServer) -> RedisStream:
    return RedisStream(redis_server.url, 100_000)


def archive(outbox: Outbox, store: FolderStore) -> int:
    """Move this hour's messages to the lake, as the bronze asset does; how many."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    hours = (hour - timedelta(hours=1), hour)
    with psycopg.connect(outbox.url, options="-c timezone=UTC") as connection:
        parts = [
            part
            for hour in hours
            for part in archive_hour(connection, store, "telemetry", hour, run_id="test")
        ]
    return sum(part.row_count for part in parts)


def backlog(outbox: Outbox) -> int:
    return int(str(outbox.query("SELECT count(*) FROM forward_backlog")[0][0]))


def test_a_smaller_transaction_that_commits_later_is_not_passed(
    outbox: Outbox, redis_server: RedisServer, redis_sink: RedisStream, start: Start
) -> None:
    start(outbox.forwarder("redis", redis_sink))
    with outbox.connect() as slow, slow.transaction():
        outbox.insert(slow, 3)
        outbox.commit(2)
        time.sleep(1)
        assert stream_ids(redis_server) == []
    wait_until(lambda: outbox.cursor("redis") == (5,))
    ids = stream_ids(redis_server)
    assert ids == outbox.in_order()
    first = outbox.query("SELECT payload FROM raw_messages ORDER BY id LIMIT 1")
    assert ids[0].encode() in bytes(first[0][0])  # type: ignore[arg-type]


def test_a_smaller_id_in_a_later_transaction_comes_later(
    outbox: Outbox, redis_server: RedisServer, redis_sink: RedisStream, start: Start
) -> None:
    start(outbox.forwarder("redis", redis_sink))
    with outbox.connect() as first, outbox.connect() as second, first.transaction():
        first.execute("SELECT pg_current_xact_id()")
        with second.transaction():
            outbox.insert(second, 2)
        outbox.insert(first, 2)
    wait_until(lambda: outbox.cursor("redis") == (4,))
    by_id = [p for (p,) in outbox.query("SELECT id FROM raw_messages ORDER BY xid, id")]
    assert by_id == [3, 4, 1, 2]
    assert stream_ids(redis_server) == outbox.in_order()


def test_a_new_forwarder_begins_now_and_an_old_one_where_it_was(
    outbox: Outbox, redis_server: RedisServer, redis_sink: RedisStream
) -> None:
    outbox.commit(3)
    for expected in (2, 4):
        forwarder = outbox.forwarder("redis", redis_sink)
        forwarder.start()
        wait_until(lambda: outbox.cursor("redis"))
        if expected == 2:
            outbox.commit(2)
        wait_until(lambda wanted=expected: outbox.cursor("redis") == (wanted,))
        forwarder.stop()
        outbox.commit(2)
    assert stream_ids(redis_server) == outbox.in_order()[3:7]


def test_the_index_is_made_once_and_new_partitions_have_it(
    outbox: Outbox, redis_sink: RedisStream, start: Start
) -> None:
    start(outbox.forwarder("redis", redis_sink))
    with outbox.connect() as connection:
        tomorrow = raw_partition(time.time() + 86_400)
        Partitions().ensure(connection, {tomorrow})
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = %s", [tomorrow.name]
        ).fetchall()
        assert ["btree (xid, id)" in definition for (definition,) in indexes] == [True]
        assert connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [INDEX]
        ).fetchone() == (True,)


def test_reading_is_an_index_scan(outbox: Outbox, redis_sink: RedisStream, start: Start) -> None:
    from ingest.forward.cursor import _READ

    start(outbox.forwarder("redis", redis_sink))
    outbox.commit(2_000)
    with outbox.connect() as connection:
        connection.execute("ANALYZE raw_messages")
        plan = connection.execute(f"EXPLAIN {_READ}", {"xid": "3", "id": 1, "limit": 10}).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Seq Scan on raw_messages" not in text
    assert "Index Cond: ((ROW(" in text


def test_one_of_two_workers_forwards_and_the_other_takes_over(
    outbox: Outbox,
    redis_server: RedisServer,
    start: Start,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "STANDBY_S", 0.1)
    caplog.set_level(logging.INFO, "ingest.forward")
    first, second = (
        outbox.forwarder("redis", RedisStream(redis_server.url, 10_000)) for _ in range(2)
    )
    start(first)
    start(second)
    for _ in range(10):
        outbox.commit(20)
        first.wake()
        second.wake()
    wait_until(lambda: outbox.cursor("redis") == (200,))
    assert sum("has the cursor" in message for message in caplog.messages) == 1
    with outbox.connect() as connection:  # as when the first one's machine dies
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    first.stop()
    outbox.commit(100)
    wait_until(lambda: outbox.cursor("redis") == (300,))
    assert stream_ids(redis_server) == outbox.in_order()


def test_what_bronze_archives_during_an_outage_is_forwarded_later(
    outbox: Outbox,
    tmp_path: Path,
    redis_server: RedisServer,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "TIDY_S", 0.1)
    forwarder = outbox.forwarder("redis", RedisStream(NOWHERE, 10_000))
    start(forwarder)
    outbox.commit(1_200)
    order = outbox.in_order()
    assert archive(outbox, FolderStore(tmp_path)) == 1_200
    assert backlog(outbox) == 1_200
    assert outbox.query("SELECT FROM raw_messages") == []
    outbox.commit(50)
    order += outbox.in_order()
    forwarder.stop()
    start(outbox.forwarder("redis", RedisStream(redis_server.url, 10_000)))
    wait_until(lambda: outbox.cursor("redis") == (1_250,))
    assert stream_ids(redis_server) == order
    wait_until(lambda: backlog(outbox) == 0)


def test_without_forwarders_bronze_sets_nothing_aside(outbox: Outbox, tmp_path: Path) -> None:
    outbox.commit(10)
    assert archive(outbox, FolderStore(tmp_path)) == 10
    assert backlog(outbox) == 0


def test_bronze_between_reading_and_moving_neither_loses_nor_leaks(
    outbox: Outbox,
    tmp_path: Path,
    redis_server: RedisServer,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Archived after the forwarder has read, before its cursor moves."""
    monkeypatch.setattr(forwarding, "TIDY_S", 0.1)
    archived: list[int] = []

    class Interrupted(RedisStream):
        async def send(self, envelopes: object) -> None:
            if not archived:
                archived.append(archive(outbox, FolderStore(tmp_path)))
            await super().send(envelopes)  # type: ignore[arg-type]

    start(outbox.forwarder("redis", Interrupted(redis_server.url, 10_000)))
    outbox.commit(700)
    order = outbox.in_order()
    wait_until(lambda: outbox.cursor("redis") == (700,))
    assert archived == [700]
    assert stream_ids(redis_server) == order
    wait_until(lambda: backlog(outbox) == 0)


def test_bronze_under_load_neither_loses_nor_doubles(
    outbox: Outbox,
    tmp_path: Path,
    redis_server: RedisServer,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forwarding, "TIDY_S", 0.05)
    monkeypatch.setattr(forwarding, "BATCH", 37)
    start(outbox.forwarder("redis", RedisStream(redis_server.url, 10_000)))
    for _ in range(20):
        outbox.commit(100)
        archive(outbox, FolderStore(tmp_path))
    wait_until(lambda: outbox.cursor("redis") == (2_000,))
    ids = stream_ids(redis_server)
    assert len(ids) == len(set(ids)) == 2_000
    wait_until(lambda: backlog(outbox) == 0)


def test_a_row_that_is_no_message_holds_nothing_up(
    outbox: Outbox,
    redis_server: RedisServer,
    redis_sink: RedisStream,
    start: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start(outbox.forwarder("redis", redis_sink))
    outbox.commit(1)
    outbox.commit(1, payload=b"rubbish")
    outbox.commit(1)
    wait_until(lambda: outbox.cursor("redis") == (2,))
    assert len(stream_ids(redis_server)) == 2
    assert [r.levelname for r in caplog.records if "skips row 2" in r.getMessage()] == ["ERROR"]


def test_a_cursor_of_another_database_stops_with_advice(
    outbox: Outbox, redis_sink: RedisStream, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with outbox.connect() as connection:
        connection.execute("INSERT INTO forwarders (name, xid, id) VALUES ('redis', '9999999', 1)")
    start(outbox.forwarder("redis", redis_sink))
    wait_until(lambda: "zenthos forwarders remove redis" in caplog.text)


def test_states_and_removal(outbox: Outbox, tmp_path: Path, redis_sink: RedisStream) -> None:
    forwarder = outbox.forwarder("redis", RedisStream(NOWHERE, 10_000))
    forwarder.start()
    wait_until(lambda: outbox.cursor("redis"))
    outbox.commit(30)
    archive(outbox, FolderStore(tmp_path))
    outbox.commit(12)
    with outbox.connect() as connection:
        (state,) = forwarder_states(connection)
        assert (state.name, state.forwarded, state.waiting) == ("redis", 0, 42)
        assert 0 < state.lag_s < 60
        with pytest.raises(ConflictError, match="restart ingest"):
            remove_forwarder(connection, "redis")
        forwarder.stop()
        with pytest.raises(NotFoundError, match="zenthos forwarders"):
            remove_forwarder(connection, "rabbitmq")
        connection.execute("INSERT INTO forwarders (name, xid, id) VALUES ('slow', '1', 1)")
        remove_forwarder(connection, "redis")
        assert backlog(outbox) == 30
        remove_forwarder(connection, "slow")
        assert backlog(outbox) == 0
        assert forwarder_states(connection) == []
        assert connection.execute("SELECT to_regclass(%s)", [INDEX]).fetchone() == (None,)


def test_a_removal_waits_for_the_archive_that_knows_the_forwarder(
    outbox: Outbox, tmp_path: Path
) -> None:
    removed = threading.Event()

    def remove() -> None:
        with outbox.connect() as connection:
            remove_forwarder(connection, "redis")
        removed.set()

    class SlowStore(FolderStore):
        def put(self, bucket: str, key: str, data: bytes) -> None:
            threading.Thread(target=remove).start()
            assert not removed.wait(0.5)
            super().put(bucket, key, data)

    with outbox.connect() as connection:
        connection.execute("INSERT INTO forwarders (name, xid, id) VALUES ('redis', '3', 1)")
    outbox.commit(5)
    assert archive(outbox, SlowStore(tmp_path)) == 5
    assert removed.wait(DEADLINE_S)
    assert backlog(outbox) == 0
