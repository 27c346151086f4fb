"""The embedded Postgres: made whole or not at all, open to its password alone."""

import os
from pathlib import Path

import psycopg
import pytest

from tests.servers import PostgresServer
from zenthos_cli.stack.postgres import PostgresCluster
from zenthos_core.errors import ConfigurationError


def test_only_the_password_opens_it(postgres: PostgresServer) -> None:
    good = postgres.url()
    with psycopg.connect(good) as connection:
        assert connection.execute("SHOW server_version_num").fetchone()[0][:2] == "16"  # type: ignore[index]
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(good.replace(postgres.cluster.password, "wrong"))


def test_databases_are_created_once(postgres: PostgresServer) -> None:
    postgres.cluster.create_databases(["one", "two"])
    postgres.cluster.create_databases(["two", "one", "three"])
    with psycopg.connect(postgres.url("three")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.fault
def test_a_stale_lock_of_another_programs_process_is_removed(own_postgres: PostgresServer) -> None:
    lock = own_postgres.cluster.data_dir / "postmaster.pid"
    own_postgres.kill()
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getppid()), *lines[1:]]))
    own_postgres.cluster.remove_stale_lock()
    assert not lock.exists()
    own_postgres.start()


def test_the_lock_of_a_running_server_stays(postgres: PostgresServer) -> None:
    postgres.cluster.remove_stale_lock()
    assert (postgres.cluster.data_dir / "postmaster.pid").exists()


def test_a_cluster_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "data", port=1, password="")  # initdb refuses it
    with pytest.raises(ConfigurationError, match="could not make a Postgres cluster"):
        cluster.initialise()
    assert not cluster.data_dir.exists()
    assert not list(tmp_path.glob("*.password"))


def test_a_start_that_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "data", port=1, password="word", durable=False)
    partial = tmp_path / "data.partial"
    partial.mkdir()
    (partial / "PG_VERSION").write_text("16\n")
    cluster.initialise()
    assert (cluster.data_dir / "PG_VERSION").exists()
    assert not partial.exists()


def test_a_setting_of_the_caller_counts(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path / "data", port=1, password="word")
    flags = cluster.command({"commit_delay": "1000", "shared_buffers": "1GB"})
    assert {"commit_delay=1000", "shared_buffers=1GB"} <= set(flags)
    assert "shared_buffers=256MB" not in flags
