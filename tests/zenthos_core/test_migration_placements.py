"""Migration 0003 on a database that was in use: every device has a placement, and keeps them."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.servers import PostgresServer
from tests.zenthos_core.test_migration_ingest import FARM, populate
from zenthos_core.database import Database, migrate

PLACEMENTS = (
    "SELECT device_id, farm_id, device_type, device_model, latitude, longitude"
    " FROM device_placements ORDER BY device_id, valid_from"
)


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[psycopg.Connection]:
    """A database that was populated before placements were kept."""
    name = f"placed_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = postgres.url(name)
    migrate(url, Database.OPS, "0001")
    with psycopg.connect(url) as connection:
        populate(connection)
    migrate(url, Database.OPS, "0002")
    migrate(url, Database.OPS, "0003")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM device_placements").fetchone()
    return int(row[0]) if row else 0


def test_each_device_is_where_it_was_since_it_was_registered(database: psycopg.Connection) -> None:
    devices = database.execute(
        "SELECT id, created_at, farm_id, device_type, device_model, latitude, longitude"
        " FROM devices ORDER BY id"
    ).fetchall()
    assert len(devices) == 5
    assert database.execute("TABLE device_placements ORDER BY device_id").fetchall() == devices


def test_a_new_device_is_placed(database: psycopg.Connection) -> None:
    database.execute(
        "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude)"
        " VALUES ('field-9', %s, 'esp32-cam', 'weather_station', 1, 2)",
        [FARM],
    )
    assert database.execute(PLACEMENTS).fetchall()[-1] == (
        *("field-9", FARM, "weather_station", "esp32-cam", 1.0, 2.0),
    )


@pytest.mark.parametrize(
    "change",
    [
        "farm_id = %(farm)s",
        "device_model = 'esp32-cam'",
        "device_type = 'weather_station'",
        "latitude = 40",
        "longitude = 40",
    ],
)
def test_a_move_adds_a_placement_and_keeps_the_old_one(
    database: psycopg.Connection, change: str
) -> None:
    row = database.execute("INSERT INTO farms (name) VALUES ('South') RETURNING id").fetchone()
    before = database.execute(PLACEMENTS).fetchall()
    statement = f"UPDATE devices SET {change} WHERE id = 'field-1'"
    for _ in range(2):  # the second one changes nothing
        database.execute(statement.encode(), {"farm": row and row[0]})
    after = database.execute(PLACEMENTS).fetchall()
    assert len(after) == len(before) + 1
    assert set(before) < set(after)


def test_what_ingest_updates_adds_none(database: psycopg.Connection) -> None:
    database.execute("UPDATE devices SET last_seen = now(), status = 'online', last_seq = 1")
    database.execute("UPDATE devices SET farm_id = farm_id")
    assert count(database) == 5


def test_moves_in_one_transaction_are_one_placement(database: psycopg.Connection) -> None:
    with database.transaction():
        database.execute("UPDATE devices SET latitude = 1 WHERE id = 'field-1'")
        database.execute("UPDATE devices SET latitude = 2 WHERE id = 'field-1'")
    assert count(database) == 6
    assert database.execute(PLACEMENTS).fetchall()[1][4] == 2.0


def test_a_device_that_is_removed_leaves_its_placements(database: psycopg.Connection) -> None:
    database.execute("DELETE FROM devices WHERE id = 'field-1'")
    assert count(database) == 5
