"""Migration 0004 on a database that was in use: devices, placements, releases stay as they are."""

import uuid

import psycopg
import pytest
from psycopg import sql

from tests.servers import PostgresServer
from zenthos_core.database import Database, migrate

BEFORE = {
    "devices": "id, farm_id, device_model, device_type, latitude, longitude, metadata, status,"
    " last_seen, firmware_version, report_interval_s, missing_readings, created_at",
    "device_placements": "device_id, valid_from, farm_id, device_model, latitude, longitude",
    "farms": "id, name, owner, created_at",
    "releases": "id, kind, name, version, manifest, published_by",
}


@pytest.fixture
def old_url(postgres: PostgresServer) -> str:
    """A database of revision 0003 with farms, devices that have moved, and a release."""
    name = f"old_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(postgres.url(name), Database.OPS, "0003")
    with psycopg.connect(postgres.url(name)) as connection:
        populate(connection)
    return postgres.url(name)


def populate(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO farms (name) VALUES ('North'), ('South')")
    connection.execute(
        "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude, status,"
        " last_seen, firmware_version, report_interval_s)"
        " SELECT 'field-' || n, (SELECT id FROM farms WHERE name = 'North'), 'esp32-s3', 'soil',"
        " n / 10.0, n / 10.0, 'online', now(), 'v1.0.' || n % 3, 900 FROM generate_series(1, 500) n"
    )
    connection.commit()  # what follows is a move
    connection.execute(
        "UPDATE devices SET farm_id = (SELECT id FROM farms WHERE name = 'South')"
        " WHERE id LIKE '%7'"
    )
    connection.execute(
        "INSERT INTO releases (kind, name, version, release_counter, sha256, size_bytes, manifest,"
        " signature, key_id, expires_at, published_by)"
        " VALUES ('model', 'irrigation', 'm-20261123-0a1b2c3', 1, 'ab', 1, '{}', 'x', 'k', now(),"
        " 'svc-lineage')"
    )


def digests(connection: psycopg.Connection) -> dict[str, tuple[object, ...] | None]:
    """Rows and content, by the columns there were."""
    return {
        table: connection.execute(
            f"SELECT count(*), md5(string_agg(r::text, '' ORDER BY r::text))"
            f" FROM (SELECT ({columns})::text AS r FROM {table}) rows"
        ).fetchone()
        for table, columns in BEFORE.items()
    }


def test_everything_is_still_there(old_url: str) -> None:
    with psycopg.connect(old_url) as connection:
        before = digests(connection)
        assert before["device_placements"] is not None
        assert before["device_placements"][0] == 550
    migrate(old_url, Database.OPS, "0004")
    with psycopg.connect(old_url) as connection:
        assert digests(connection) == before


def test_every_device_is_in_use_and_no_token_of_it_is_void(old_url: str) -> None:
    migrate(old_url, Database.OPS, "0004")
    with psycopg.connect(old_url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT tags, tokens_valid_from, factory_secret_hash, decommissioned_at"
            " FROM devices"
        ).fetchall()
        assert rows == [([], None, None, None)]
        for table in ("users", "sessions", "refresh_tokens", "audit_log"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_updates_by_ingest_stay_within_their_page(old_url: str) -> None:
    migrate(old_url, Database.OPS, "0004")
    with psycopg.connect(old_url, autocommit=True) as connection:
        connection.execute("VACUUM FULL devices")
        connection.execute("UPDATE devices SET last_seen = now(), battery_voltage = 3.9")
        connection.execute("SELECT pg_stat_force_next_flush()")
        updates = connection.execute(
            "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'devices'"
        ).fetchone()
        assert updates is not None
        assert updates[0] > 0
