"""Migration 0005 on a database that was in use: what was published stays offered as it was."""

import uuid

import psycopg
import pytest
from psycopg import sql

from tests.servers import PostgresServer
from tests.zenthos_core.test_migration_identity import digests, populate
from zenthos_core.database import Database, migrate

RELEASES = (("v1.0.0", 100, 1), ("v1.1.0", 25, 2), ("v1.2.0", 0, 3))


@pytest.fixture
def old_url(postgres: PostgresServer) -> str:
    """A database of revision 0004 with devices, and releases at several percentages."""
    name = f"old_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(postgres.url(name), Database.OPS, "0004")
    with psycopg.connect(postgres.url(name)) as connection:
        populate(connection)
        for version, percentage, counter in RELEASES:
            publish(connection, version, percentage, counter)
    return postgres.url(name)


def publish(connection: psycopg.Connection, version: str, percentage: int, counter: int) -> None:
    row = connection.execute(
        "INSERT INTO releases (kind, name, version, release_counter, sha256, size_bytes, manifest,"
        " signature, key_id, expires_at, published_by, rollout_percentage)"
        " VALUES ('firmware-bundle', 'sensor', %s, %s, 'ab', 1, '{}', 'x', 'k', now(), 'anna', %s)"
        " RETURNING id",
        (version, counter, percentage),
    ).fetchone()
    assert row is not None
    for model in ("esp32-s3", "esp32-c3"):
        connection.execute(
            "INSERT INTO release_targets (release_id, device_model, kind, name, version,"
            " release_counter, object_key)"
            " VALUES (%s, %s, 'firmware-bundle', 'sensor', %s, %s, %s)",
            (row[0], model, version, counter, f"firmware/{model}/{version}"),
        )


def test_releases_are_offered_to_as_many_as_before_and_all_else_stays(old_url: str) -> None:
    with psycopg.connect(old_url) as connection:
        before = digests(connection)
        targets = connection.execute("SELECT * FROM release_targets ORDER BY 1, 2").fetchall()
    migrate(old_url, Database.OPS)
    with psycopg.connect(old_url) as connection:
        assert digests(connection) == before
        now = connection.execute("SELECT * FROM release_targets ORDER BY 1, 2").fetchall()
        assert [row[: len(targets[0])] for row in now] == targets
        rollouts = connection.execute(
            "SELECT r.version, o.device_model, o.phases, o.state, o.created_by,"
            " o.started_at = r.uploaded_at FROM rollouts o JOIN releases r ON r.id = o.release_id"
            " WHERE r.kind <> 'model' ORDER BY 1, 2"
        ).fetchall()
        assert rollouts == [
            ("v1.0.0", "esp32-c3", [100.0], "finished", "anna", True),
            ("v1.0.0", "esp32-s3", [100.0], "finished", "anna", True),
            ("v1.1.0", "esp32-c3", [25.0], "finished", "anna", True),
            ("v1.1.0", "esp32-s3", [25.0], "finished", "anna", True),
        ]
        for table in ("deployments", "deployment_events", "alerts"):
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            assert connection.execute(query).fetchone() == (0,)


def test_the_catalogue_changes_with_releases_and_rollouts(old_url: str) -> None:
    migrate(old_url, Database.OPS)
    query = "SELECT version FROM catalogue"
    with psycopg.connect(old_url, autocommit=True) as connection:
        versions = [connection.execute(query).fetchone()]
        for statement in (
            "UPDATE releases SET withdrawn_at = now() WHERE version = 'v1.1.0'",
            "UPDATE rollouts SET state = 'aborted'",
            "DELETE FROM rollouts",
        ):
            connection.execute(statement.encode())
            versions.append(connection.execute(query).fetchone())
    assert len(set(versions)) == len(versions)
