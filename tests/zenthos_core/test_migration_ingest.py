"""Migration 0002 on a database that was in use: everything is still there, and adds up."""

import hashlib
import threading
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from tests.servers import PostgresServer
from zenthos_core.database import Database, migrate

FARM = uuid.uuid4()
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
# reason, topic, payload, how often it came
QUARANTINED = [
    ("bad_json", "zenthos/esp32-s3/field-01/telemetry", b"{", 3),
    ("bad_json", "zenthos/esp32-s3/field-01/telemetry", b"{\x00\xff\\n'", 1),
    ("unknown_device", "zenthos/esp32-s3/field-01/telemetry", b"{", 2),
    ("bad_topic", "zenthos/fält/→\\n%s/telemetry", b"", 4),
]


@pytest.fixture
def old_url(postgres: PostgresServer) -> str:
    """A database of revision 0001 with some of everything that ingest had stored."""
    name = f"old_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(postgres.url(name), Database.OPS, "0001")
    with psycopg.connect(postgres.url(name)) as connection:
        populate(connection)
    return postgres.url(name)


def populate(connection: psycopg.Connection, readings_a_day: int = 50) -> None:
    """Ten days of readings, an hour of the outbox, a quarantine with repetitions, a ledger."""
    connection.execute("SET timezone = 'UTC'")
    connection.execute("INSERT INTO farms (id, name) VALUES (%s, 'North')", [FARM])
    connection.execute(
        "INSERT INTO devices (id, farm_id, device_model, device_type, last_seen)"
        " SELECT 'field-' || n, %s, 'esp32-s3', 'soil', %s FROM generate_series(1, 5) n",
        [FARM, NOON],
    )
    for day in range(10):
        start = NOON.replace(hour=0) - timedelta(days=day)
        connection.execute(
            f"CREATE TABLE telemetry_hot_{start:%Y%m%d} PARTITION OF telemetry_hot"
            f" FOR VALUES FROM ('{start}') TO ('{start + timedelta(days=1)}')"
        )
        connection.execute(
            "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, temperature,"
            " received_at, clock_suspect, extra)"
            " SELECT %(start)s + n * INTERVAL '1 day' / %(n)s, gen_random_uuid(),"
            " 'field-' || n %% 5, %(farm)s, n, %(start)s, n %% 7 = 0, '{\"co2\": 1}'"
            " FROM generate_series(0, %(n)s - 1) n",
            {"start": start, "n": readings_a_day, "farm": FARM},
        )
    connection.execute(
        f"CREATE TABLE raw_messages_{NOON:%Y%m%d%H} PARTITION OF raw_messages"
        f" FOR VALUES FROM ('{NOON}') TO ('{NOON + timedelta(hours=1)}')"
    )
    connection.execute(
        "INSERT INTO raw_messages (message_type, topic, payload, received_at, qos)"
        " SELECT 'telemetry', 't', convert_to(n::text, 'UTF8'), %s, 1"
        " FROM generate_series(1, 500) n",
        [NOON],
    )
    for reason, topic, payload, count in QUARANTINED:
        for number in range(count):
            connection.execute(
                "INSERT INTO quarantine (received_at, topic, payload, reason, detail)"
                " VALUES (%s, %s, %s, %s, %s)",
                [NOON + timedelta(seconds=number), topic, payload, reason, f"no. {number}"],
            )
    connection.execute(
        "INSERT INTO ledger (day, device_id, stored, duplicate, quarantined)"
        " SELECT %s, 'field-' || n, 100 * n, 10 * n, n FROM generate_series(1, 5) n",
        [NOON],
    )


def digests(connection: psycopg.Connection) -> dict[str, tuple[object, ...] | None]:
    """Rows and content, by the columns of 0001, of each table that 0002 changes."""
    columns = {
        "telemetry_hot": "time, message_id, device_id, farm_id, temperature, received_at,"
        " clock_suspect, extra",
        "raw_messages": "id, message_type, topic, payload, received_at, ingested_at, qos",
        "devices": "id, farm_id, device_model, status, last_seen, created_at",
        "ledger": "day, device_id, stored, duplicate, quarantined",
    }
    return {
        table: connection.execute(
            f"SELECT count(*), md5(string_agg(r::text, '' ORDER BY r::text))"
            f" FROM (SELECT ({names})::text AS r FROM {table}) rows"
        ).fetchone()
        for table, names in columns.items()
    }


def test_everything_is_still_there(old_url: str) -> None:
    with psycopg.connect(old_url) as connection:
        before = digests(connection)
        assert before["telemetry_hot"] is not None
        assert before["telemetry_hot"][0] == 500
    migrate(old_url, Database.OPS, "0002")
    with psycopg.connect(old_url) as connection:
        assert digests(connection) == before
        received = "SELECT bool_and(received = stored + duplicate + quarantined), sum(received)"
        row = connection.execute(f"{received} FROM ledger").fetchone()
        assert row == (True, 111 * 15)


def test_equal_quarantined_messages_become_one_row_that_counts_them(old_url: str) -> None:
    migrate(old_url, Database.OPS, "0002")
    expected = {
        hashlib.sha256(hashlib.sha256(f"{reason}\n{topic}".encode()).digest() + payload).digest(): (
            *(reason, topic, payload, count),
            *(NOON, NOON + timedelta(seconds=count - 1), "no. 0"),
        )
        for reason, topic, payload, count in QUARANTINED
    }
    with psycopg.connect(old_url) as connection:
        rows = connection.execute(
            "SELECT fingerprint, reason, topic, payload, occurrences, received_at,"
            " last_received_at, detail FROM quarantine"
        ).fetchall()
    assert {fingerprint: tuple(columns) for fingerprint, *columns in rows} == expected
    assert len(rows) == len(expected)


def test_without_timescaledb_the_day_tables_are_partitioned(old_url: str) -> None:
    migrate(old_url, Database.OPS, "0002")
    with psycopg.connect(old_url) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'p' ORDER BY 1")
        assert [name for (name,) in rows] == [
            *("device_logs", "device_status", "raw_messages", "telemetry_hot")
        ]


def test_a_reader_delays_the_migration_and_is_not_waited_for_for_ever(
    old_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenthos_core.migrations.environment.LOCK_TIMEOUT", "300ms")
    with psycopg.connect(old_url) as reader:
        before = digests(reader)
        with pytest.raises(Exception, match="lock timeout"):
            migrate(old_url, Database.OPS, "0002")
        assert digests(reader) == before
        migrating = threading.Thread(target=migrate, args=[old_url, Database.OPS, "0002"])
        monkeypatch.setattr("zenthos_core.migrations.environment.LOCK_TIMEOUT", "30s")
        migrating.start()
        while not reader.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert migrating.is_alive()
        reader.commit()
        migrating.join()
        assert reader.execute("SELECT version_num FROM alembic_version").fetchone() == ("0002",)
        assert digests(reader) == before
