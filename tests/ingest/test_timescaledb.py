"""Ingest on hypertables, on a real TimescaleDB that has one session: nothing at the same time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ingest.batch import DAY_S, build_batch
from ingest.partitions import DAY_TABLES, Partitions, day_partition, drop_expired
from ingest.writer import Outcome, Writer
from tests.ingest.conftest import register
from tests.ingest.messages import DEVICE, NOW, REGISTRY, publish, telemetry
from tests.ingest.test_partitions import COLUMNS, put
from tests.zenthos_core.test_migration_ingest import digests, populate
from zenthos_core.database import Database, connect, migrate

TODAY = int(NOW // DAY_S)
HOT_DAYS = 7


@pytest.fixture
def database(timescale: str) -> Iterator[psycopg.Connection]:
    """The migrated operational database, with devices."""
    migrate(timescale, Database.OPS)
    with connect(timescale, application="test", autocommit=True) as connection:
        register(connection, DEVICE, "field-02")
        yield connection


def chunks(connection: psycopg.Connection, table: str) -> list[tuple[datetime, datetime]]:
    query = (
        "SELECT range_start, range_end FROM timescaledb_information.chunks"
        " WHERE hypertable_name = %s ORDER BY 1"
    )
    return connection.execute(query, [table]).fetchall()


def test_the_migration_carries_readings_over_to_hypertables(timescale: str) -> None:
    migrate(timescale, Database.OPS, "0001")
    with connect(timescale, application="test") as connection:
        populate(connection)
        before = digests(connection)
    migrate(timescale, Database.OPS)
    with connect(timescale, application="test", autocommit=True) as connection:
        assert digests(connection) == before
        tables = connection.execute(
            "SELECT hypertable_name FROM timescaledb_information.hypertables"
        )
        assert {name for (name,) in tables} == set(DAY_TABLES)
        lengths = {end - start for start, end in chunks(connection, "telemetry_hot")}
        assert lengths == {timedelta(days=1)}
        left = "SELECT relname FROM pg_class WHERE relname ~ 'native|telemetry_hot_2'"
        assert connection.execute(left).fetchall() == []
        native = "SELECT relname FROM pg_class WHERE relkind = 'p'"
        assert connection.execute(native).fetchall() == [("raw_messages",)]


def test_the_writer_stores_each_message_once(database: psycopg.Connection) -> None:
    writer = Writer(database, HOT_DAYS)
    times = [NOW - day * DAY_S for day in (0, 1, 6)] + [NOW + 60, 0]
    payloads = [telemetry(timestamp=time) for time in times]

    def write(received_at: float) -> Outcome:
        messages = [publish(payload, received_at=received_at) for payload in payloads]
        return writer.write(build_batch(messages, REGISTRY, HOT_DAYS), [received_at])

    assert write(NOW) == Outcome(stored=5, duplicate=0, quarantined=0)
    assert write(NOW + 30) == Outcome(stored=0, duplicate=5, quarantined=0)
    payloads.append(telemetry())
    assert write(NOW + 40) == Outcome(stored=1, duplicate=5, quarantined=0)
    counts = "SELECT (SELECT count(*) FROM telemetry_hot), (SELECT count(*) FROM raw_messages)"
    assert database.execute(counts).fetchone() == (6, 16)
    assert len(chunks(database, "telemetry_hot")) == 3


def test_a_copy_that_meets_a_duplicate_ends_at_its_savepoint(database: psycopg.Connection) -> None:
    put(database, "telemetry_hot", TODAY)
    row = database.execute("SELECT * FROM telemetry_hot").fetchone()
    assert row is not None

    def copy_again() -> None:
        with (
            database.transaction(),
            database.cursor().copy("COPY telemetry_hot FROM STDIN") as copy,
        ):
            copy.write_row(row)

    with database.transaction():
        put(database, "device_logs", TODAY)
        with pytest.raises(psycopg.errors.UniqueViolation):
            copy_again()
        put(database, "telemetry_hot", TODAY)
    counts = "SELECT (SELECT count(*) FROM telemetry_hot), (SELECT count(*) FROM device_logs)"
    assert database.execute(counts).fetchone() == (2, 1)


def test_days_past_the_hot_window_are_dropped_and_need_no_partitions(
    database: psycopg.Connection,
) -> None:
    oldest = TODAY - HOT_DAYS - 1
    days = (oldest - 2, oldest - 1, oldest, TODAY)
    needed = {day_partition(table, day) for table in DAY_TABLES for day in days}
    assert Partitions().ensure(database, needed)
    for table in COLUMNS:
        for day in days:
            put(database, table, day)
    drop_expired(database, oldest)
    for table in DAY_TABLES:
        starts = [start for start, _ in chunks(database, table)]
        assert starts == [day_partition(table, day).start.astimezone(UTC) for day in days[2:]]
        assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (2,)
    drop_expired(database, oldest)
