"""Partitions are made and dropped while others read and write, on a real Postgres."""

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from ingest.partitions import (
    DAY_TABLES,
    Partitions,
    day_partition,
    drop_expired,
    forget_cold,
    raw_partition,
)
from tests.ingest.messages import DEVICE, FARM
from zenthos_core.database import connect

DAY = 20_780
OLDEST = DAY - 8
COLUMNS = {
    "telemetry_hot": {"farm_id": FARM},
    "device_status": {"status": "online"},
    "device_logs": {"level": "info", "message": ""},
}
Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def session(ops_url: str) -> Iterator[Connect]:
    """One more session in autocommit; it ends with the test."""
    opened: list[psycopg.Connection] = []

    def session() -> psycopg.Connection:
        opened.append(connect(ops_url, application="test", autocommit=True))
        return opened[-1]

    yield session
    for connection in opened:
        connection.close()


def put(connection: psycopg.Connection, table: str, day: int) -> None:
    """One row at noon."""
    start = day_partition(table, day).start
    row = {"time": start, "message_id": uuid.uuid4(), "device_id": DEVICE, "received_at": start}
    row |= COLUMNS[table]
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


def fill(connection: psycopg.Connection, *days: int) -> None:
    """A row of each day in each day table."""
    Partitions().ensure(connection, {day_partition(t, day) for t in DAY_TABLES for day in days})
    for table in DAY_TABLES:
        for day in days:
            put(connection, table, day)


def days(connection: psycopg.Connection, table: str) -> list[int]:
    """Days of the rows that a table shows."""
    query = f"SELECT time::date - DATE '1970-01-01' FROM {table} ORDER BY 1"
    return [day for (day,) in connection.execute(query)]


def partitions(connection: psycopg.Connection) -> set[str]:
    """Every table that is, or was, a partition of a day."""
    query = "SELECT tablename FROM pg_tables WHERE tablename ~ '_[0-9]{8}$'"
    return {name for (name,) in connection.execute(query)}


def names(*of_days: int, tables: tuple[str, ...] = DAY_TABLES) -> set[str]:
    return {day_partition(table, day).name for table in tables for day in of_days}


def test_days_past_the_hot_window_are_dropped_from_every_day_table(session: Connect) -> None:
    ingest = session()
    outbox = raw_partition((OLDEST - 2) * 86_400)
    Partitions().ensure(ingest, {outbox})
    fill(ingest, OLDEST - 2, OLDEST - 1, OLDEST, DAY)
    drop_expired(ingest, OLDEST)
    for table in DAY_TABLES:
        assert days(ingest, table) == [OLDEST, DAY]
    assert partitions(ingest) == names(OLDEST, DAY)
    assert ingest.execute("SELECT to_regclass(%s)", [outbox.name]).fetchone() == (outbox.name,)


@pytest.mark.parametrize("day", [OLDEST - 1, DAY])
def test_a_reader_makes_no_writer_wait(session: Connect, day: int) -> None:
    """Whether it reads the day that is dropped or another one."""
    housekeeper, writer, reader = session(), session(), session()
    fill(writer, OLDEST - 2, OLDEST - 1, DAY)
    writer.execute("SET lock_timeout = '100ms'")
    with ThreadPoolExecutor(1) as executor, reader.transaction():
        reader.execute("SELECT FROM telemetry_hot WHERE time = %s", [day_partition("", day).start])
        dropping = executor.submit(drop_expired, housekeeper, OLDEST)
        written = 0
        while not dropping.done():
            put(writer, "telemetry_hot", DAY)
            days(writer, "telemetry_hot")
            written += 1
        dropping.result()
        assert written > 10
        assert days(writer, "device_logs") == [DAY]
        assert names(OLDEST - 2, OLDEST - 1, tables=("telemetry_hot",)) < partitions(writer)
        Partitions().ensure(writer, {day_partition("telemetry_hot", DAY + 1)})
        put(writer, "telemetry_hot", DAY + 1)
    drop_expired(housekeeper, OLDEST)
    assert partitions(writer) == names(DAY) | names(DAY + 1, tables=("telemetry_hot",))
    assert len(days(writer, "telemetry_hot")) == written + 2


def test_what_a_crash_left_detached_is_dropped(session: Connect) -> None:
    ingest = session()
    fill(ingest, OLDEST - 1, DAY)
    name = day_partition("device_logs", OLDEST - 1).name
    ingest.execute(f"ALTER TABLE device_logs DETACH PARTITION {name}")
    drop_expired(ingest, OLDEST)
    assert partitions(ingest) == names(DAY)


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_day_that_was_detached_is_attached_again_with_its_rows(
    session: Connect, cut_short: bool
) -> None:
    """The hot window was made longer before it was dropped."""
    ingest, reader = session(), session()
    fill(ingest, OLDEST - 1)
    name = day_partition("telemetry_hot", OLDEST - 1).name
    detach = f"ALTER TABLE telemetry_hot DETACH PARTITION {name} CONCURRENTLY"
    if cut_short:
        ingest.execute("SET lock_timeout = '100ms'")
        with reader.transaction():
            reader.execute("SELECT FROM telemetry_hot")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                ingest.execute(detach)
    else:
        ingest.execute(detach)
    assert days(ingest, "telemetry_hot") == []
    fill(ingest, OLDEST - 1)
    assert days(ingest, "telemetry_hot") == [OLDEST - 1] * 2


def test_an_hour_of_the_outbox_that_someone_detached_loses_nothing(session: Connect) -> None:
    ingest, hour = session(), raw_partition(OLDEST * 86_400)
    Partitions().ensure(ingest, {hour})
    ingest.execute(
        "INSERT INTO raw_messages (message_type, topic, payload, received_at, qos)"
        " VALUES ('telemetry', 't', '{}', %s, 1)",
        [hour.start],
    )
    ingest.execute(f"ALTER TABLE raw_messages DETACH PARTITION {hour.name}")
    Partitions().ensure(ingest, {hour})
    assert ingest.execute("SELECT count(*) FROM raw_messages").fetchone() == (1,)


def test_one_worker_drops_at_a_time(session: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.partitions._LOCK_TIMEOUT", "60s")
    first, second, reader = session(), session(), session()
    fill(first, OLDEST - 1)
    with ThreadPoolExecutor(1) as executor, reader.transaction():
        reader.execute("SELECT FROM telemetry_hot")
        dropping = executor.submit(drop_expired, first, OLDEST)
        while not reader.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not dropping.done()
        drop_expired(second, OLDEST)
        assert not dropping.done()
    drop_expired(second, OLDEST)
    assert partitions(second) == set()
    assert second.execute("SHOW lock_timeout").fetchone() == ("0",)
    assert not second.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'").fetchall()


def test_cold_messages_are_forgotten_after_the_hot_window(session: Connect) -> None:
    ingest = session()
    for day in (OLDEST - 1, OLDEST, DAY):
        ingest.execute(
            "INSERT INTO cold_messages VALUES (%s, gen_random_uuid(), %s)",
            [DEVICE, day_partition("", day).start],
        )
    assert forget_cold(ingest, OLDEST) == 1
    assert ingest.execute("SELECT count(*) FROM cold_messages").fetchone() == (2,)


def test_a_lost_session_is_told_and_lets_others_drop(session: Connect) -> None:
    ingest, other = session(), session()
    fill(ingest, OLDEST - 1)
    other.execute("SELECT pg_terminate_backend(%s)", [ingest.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        drop_expired(ingest, OLDEST)
    drop_expired(other, OLDEST)
    assert partitions(other) == set()
