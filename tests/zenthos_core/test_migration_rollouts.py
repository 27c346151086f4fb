"""Migration 0005 on a database that was in use: what was published goes on being offered."""

import uuid

import psycopg
import pytest
from psycopg import errors, sql

from tests.servers import PostgresServer
from zenthos_core.database import Database, migrate

RELEASES = "SELECT kind, name, version, release_counter, manifest, rollout_percentage FROM releases"


@pytest.fixture
def old_url(postgres: PostgresServer) -> str:
    """A database of revision 0004 with devices and three releases."""
    name = f"old_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(postgres.url(name), Database.OPS, "0004")
    with psycopg.connect(postgres.url(name)) as connection:
        connection.execute("INSERT INTO farms (name) VALUES ('North')")
        connection.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type)"
            " SELECT 'field-' || n, farms.id, 'esp32-s3', 'soil'"
            " FROM farms, generate_series(1, 9) n"
        )
        for counter, (version, percentage) in enumerate(
            [("v1.0.0", 100), ("v1.1.0", 10), ("v1.2.0", 0)], start=1
        ):
            publish(connection, version, counter, percentage)
    return postgres.url(name)


def publish(
    connection: psycopg.Connection, version: str, counter: int, percentage: int = 100
) -> None:
    connection.execute(
        "WITH release AS (INSERT INTO releases (kind, name, version, release_counter, sha256,"
        " size_bytes, manifest, signature, key_id, expires_at, published_by, rollout_percentage)"
        " VALUES ('firmware-bundle', 'sensor', %(version)s, %(counter)s, 'ab', 1, '{}', 'x', 'k',"
        " now(), 'ci', %(percentage)s) RETURNING id)"
        " INSERT INTO release_targets (release_id, device_model, kind, name, version,"
        " release_counter, object_key)"
        " SELECT id, 'esp32-s3', 'firmware-bundle', 'sensor', %(version)s, %(counter)s, 'k'"
        " FROM release",
        {"version": version, "counter": counter, "percentage": percentage},
    )


def test_releases_become_rollouts_and_nothing_else_changes(old_url: str) -> None:
    with psycopg.connect(old_url) as connection:
        before = connection.execute(f"{RELEASES} ORDER BY release_counter").fetchall()
    migrate(old_url, Database.OPS)
    with psycopg.connect(old_url) as connection:
        assert connection.execute(f"{RELEASES} ORDER BY release_counter").fetchall() == before
        rollouts = connection.execute(
            "SELECT r.version, o.device_model, o.state, o.phases, o.created_by FROM rollouts o"
            " JOIN releases r ON r.id = o.release_id ORDER BY r.release_counter"
        ).fetchall()
        assert rollouts == [
            ("v1.0.0", "esp32-s3", "finished", [100.0], "ci"),
            ("v1.1.0", "esp32-s3", "finished", [10.0], "ci"),
        ]
        assert connection.execute("SELECT count(*) FROM devices").fetchone() == (9,)


def test_the_catalogue_changes_with_releases_and_rollouts_alone(old_url: str) -> None:
    migrate(old_url, Database.OPS)
    seen = []
    with psycopg.connect(old_url, autocommit=True) as connection:
        for statement in (
            "UPDATE devices SET last_seen = now()",
            "UPDATE releases SET withdrawn_at = now() WHERE version = 'v1.0.0'",
            "UPDATE rollouts SET state = 'aborted'",
        ):
            connection.execute(statement.encode())
            row = connection.execute("SELECT version FROM catalogue").fetchone()
            assert row is not None
            seen.append(row[0])
    assert seen[0] < seen[1] < seen[2]


def test_a_version_is_published_once_but_may_be_reissued(old_url: str) -> None:
    migrate(old_url, Database.OPS)
    with psycopg.connect(old_url) as connection, pytest.raises(errors.UniqueViolation):
        publish(connection, "v1.0.0", 4)
    with psycopg.connect(old_url) as connection:
        connection.execute("ALTER TABLE release_targets ALTER reissue SET DEFAULT true")
        publish(connection, "v1.0.0", 4)
