"""Connections and migrations, on a real Postgres."""

import subprocess
import sys
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.servers import PostgresServer
from zenthos_core.database import Database, connect, migrate
from zenthos_core.migrations.environment import LOCK_KEY

TABLES = {
    Database.OPS: {"farms", "devices", "telemetry_hot", "raw_messages", "quarantine", "releases"},
    Database.ANALYTICS: {"telemetry_hourly", "telemetry_daily", "ml_features"},
}


@pytest.fixture
def empty_url(postgres: PostgresServer, request: pytest.FixtureRequest) -> str:
    name = f"empty_{abs(hash(request.node.nodeid))}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return postgres.url(name)


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row[0] for row in rows}


@pytest.mark.parametrize("database", Database)
def test_migrates_and_again(empty_url: str, database: Database) -> None:
    for _ in range(2):
        migrate(empty_url, database)
    assert tables(empty_url) >= TABLES[database]


def test_migrates_from_several_processes_at_once(empty_url: str) -> None:
    program = (
        "import sys; from zenthos_core.database import Database, migrate;"
        " migrate(sys.argv[1], Database.OPS)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, empty_url]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with psycopg.connect(empty_url) as connection:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert rows == [("0005",)]


def test_a_migration_does_not_wait_for_ever(empty_url: str) -> None:
    with psycopg.connect(empty_url) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(Exception, match="lock timeout"):
            migrate(empty_url, Database.OPS)
    assert "farms" not in tables(empty_url)


def test_migrating_again_keeps_the_data(ops_url: str) -> None:
    with psycopg.connect(ops_url) as connection:
        connection.execute("INSERT INTO farms (name) VALUES ('North')")
    migrate(ops_url, Database.OPS)
    with psycopg.connect(ops_url) as connection:
        assert connection.execute("SELECT name FROM farms").fetchall() == [("North",)]


def test_connections_are_in_utc_and_named(ops_url: str) -> None:
    with connect(ops_url, application="test") as connection:
        row = connection.execute(
            "SELECT current_setting('timezone'), current_setting('application_name')"
        ).fetchone()
    assert row == ("UTC", "zenthos-test")


def test_url_may_hold_any_password(postgres: PostgresServer, empty_url: str) -> None:
    address = urlsplit(empty_url)
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE odd LOGIN SUPERUSER PASSWORD 'p@ss:w/rd%'")
    url = f"postgresql://odd:p%40ss%3Aw%2Frd%25@127.0.0.1:{address.port}{address.path}"
    try:
        migrate(url, Database.ANALYTICS)
        assert tables(url) >= TABLES[Database.ANALYTICS]
    finally:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            database = sql.Identifier(address.path[1:])
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
            connection.execute("DROP ROLE odd")


def test_a_firmware_version_is_one_thing(ops_url: str) -> None:
    release = (
        "INSERT INTO releases (id, kind, name, version, release_counter, sha256, size_bytes,"
        " manifest, signature, key_id, expires_at, published_by) VALUES (%(id)s, %(kind)s, 'n',"
        " 'v1.0.0', 1, '', 1, '', '', '', now(), '')"
    )
    target = (
        "INSERT INTO release_targets VALUES (%(id)s, 'esp32-s3', %(kind)s, 'n', 'v1.0.0', 1, '')"
    )
    ids = (f"00000000-0000-0000-0000-00000000000{n}" for n in range(2))
    with psycopg.connect(ops_url) as connection:
        first = {"id": next(ids), "kind": "firmware-bundle"}
        connection.execute(release, first)
        connection.execute(target, first)
        second = {"id": next(ids), "kind": "esp-image"}
        connection.execute(release, second)
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(target, second)
