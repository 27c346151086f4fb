"""Weekly maintenance on real databases: dead rows go, backups restore, a bad one fails the run."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import ROOT
from tests.waiting import wait_until
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets.maintenance.backup import (
    HOT_TABLES,
    BackupError,
    back_up,
    find_program,
    fingerprints,
    remove_old,
    restore,
    scratch_database,
)
from zenthos_assets.maintenance.checks import reached
from zenthos_assets.maintenance.vacuum import Vacuumed, vacuum_tables
from zenthos_cli.stack import postgres
from zenthos_core.database import connect
from zenthos_core.errors import ConfigurationError

DAY = datetime(2026, 11, 10, tzinfo=UTC)
PROGRAMS = Path(postgres.program("pg_dump")).parent


@pytest.fixture
def yard(farmyard: Farmyard, tmp_path: Path) -> Farmyard:
    """A farmyard with readings in the outbox, the lake and both databases."""
    with (tmp_path / ".env").open("a") as file:
        file.write(f"ZENTHOS_POSTGRES_BIN={PROGRAMS}\nZENTHOS_BACKUP_DIR={tmp_path / 'backups'}\n")
    farmyard.receive(reading("soil-1", DAY + timedelta(hours=hour)) for hour in range(24))
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.run("daily", "2026-11-10").success
    farmyard.receive([reading("soil-2", DAY)], at=RECEIVED + timedelta(hours=1))
    farmyard.execute(
        "INSERT INTO quarantine (received_at, topic, payload, reason, detail, fingerprint,"
        " last_received_at)"
        " VALUES (now(), 'zenthos/ä', '\\xff00', 'not_json', 'ü', '\\x01', now())"
    )
    return farmyard


def databases(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


def hot_rows(yard: Farmyard) -> None:
    """A day of hot readings, as ingest makes it."""
    yard.execute(
        "CREATE TABLE telemetry_hot_20261110 PARTITION OF telemetry_hot"
        " FOR VALUES FROM ('2026-11-10') TO ('2026-11-11')"
    )
    yard.execute(
        "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, received_at)"
        " SELECT '2026-11-10', gen_random_uuid(), 'soil-1', id, now() FROM farms"
    )


def test_the_weekly_job_vacuums_backs_up_and_proves_it(yard: Farmyard, tmp_path: Path) -> None:
    result = yard.run("weekly")
    assert result.success
    passed = {e.check_name for e in result.get_asset_check_evaluations() if e.passed}
    assert {"every_table_reached", "restores_to_the_same", "sampled_objects_intact"} <= passed
    names = {path.name.split("-")[0] for path in (tmp_path / "backups").glob("*.dump")}
    urls = (yard.ops_url, yard.analytics_url)
    assert names == {str(conninfo_to_dict(url)["dbname"]) for url in urls}
    assert not list((tmp_path / "backups").glob("*.partial"))
    assert not [name for name in databases(yard.ops_url) if name.endswith("_restore_check")]
    [backup] = result.asset_materializations_for_node("maintenance__backup_ops")
    assert {"size_bytes", "dump_seconds", "restore_seconds", "by_table"} <= backup.metadata.keys()
    [lake] = result.asset_materializations_for_node("maintenance__lake_sample")
    assert lake.metadata["objects"].value == 1


def test_rule_1_what_is_written_meanwhile_is_not_in_the_backup(
    yard: Farmyard, tmp_path: Path
) -> None:
    """pg_dump, slowed down, sees its snapshot; so does the comparison."""
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "pg_restore").symlink_to(PROGRAMS / "pg_restore")
    insert = "INSERT INTO farms (name) VALUES ('south')"
    psql = f"{PROGRAMS / 'psql'} '{yard.ops_url}' -qc \"{insert}\""
    (slow / "pg_dump").write_text(f'#!/bin/sh\n{psql} && exec {PROGRAMS / "pg_dump"} "$@"\n')
    (slow / "pg_dump").chmod(0o755)
    backup = back_up(yard.ops_url, tmp_path / "b" / "ops-1.dump", programs=slow)
    assert backup.differing == []
    assert backup.original["public.farms"].rows == 1
    assert yard.execute("SELECT count(*) FROM farms") == [(2,)]


@pytest.mark.parametrize(("leave_out", "rows"), [((), 1), (HOT_TABLES, 0)])
def test_rule_2_hot_rows_are_left_out_where_asked(
    yard: Farmyard, tmp_path: Path, leave_out: tuple[str, ...], rows: int
) -> None:
    hot_rows(yard)
    backup = back_up(yard.ops_url, tmp_path / "ops-1.dump", programs=PROGRAMS, leave_out=leave_out)
    assert backup.differing == []
    assert backup.restored["public.telemetry_hot"].rows == rows
    assert backup.restored["public.raw_messages"].rows == 1, "the outbox is always in it"


def test_rule_3_a_backup_that_differs_fails_the_run_and_keeps_the_older_ones(
    yard: Farmyard, tmp_path: Path
) -> None:
    """A pg_dump that silently leaves a table's rows out, as a wrong option would."""
    assert yard.run("weekly").success
    good = set((tmp_path / "backups").glob("*.dump"))
    lossy = tmp_path / "bin"
    lossy.mkdir()
    (lossy / "pg_restore").symlink_to(PROGRAMS / "pg_restore")
    (lossy / "pg_dump").write_text(
        f'#!/bin/sh\nexec {PROGRAMS / "pg_dump"} --exclude-table-data=quarantine "$@"\n'
    )
    (lossy / "pg_dump").chmod(0o755)
    with (tmp_path / ".env").open("a") as file:
        file.write(f"ZENTHOS_POSTGRES_BIN={lossy}\nZENTHOS_BACKUPS_KEPT=1\n")
    result = yard.run("weekly")
    assert not result.success
    [refused] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (refused.check_name, refused.description) == (
        "restores_to_the_same",
        "not as they were: public.quarantine",
    )
    ops = str(conninfo_to_dict(yard.ops_url)["dbname"])
    kept = set((tmp_path / "backups").glob(f"{ops}-*.dump"))
    assert kept == {path for path in good if path.name.startswith(ops)}


def test_rule_3_the_newest_backups_are_kept(tmp_path: Path) -> None:
    for day in range(1, 6):
        (tmp_path / f"ops-2026110{day}T030000Z.dump").touch()
    (tmp_path / "other-20261101T030000Z.dump").touch()
    remove_old(tmp_path, "ops", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("ops-20261104T030000Z.dump", "ops-20261105T030000Z.dump"),
        "other-20261101T030000Z.dump",
    ]


def test_rule_3_what_was_not_finished_goes_when_the_next_begins(
    yard: Farmyard, tmp_path: Path
) -> None:
    (tmp_path / "ops-20261106T030000Z.partial").touch()
    (tmp_path / "other-20261106T030000Z.partial").touch()
    back_up(yard.ops_url, tmp_path / "ops-20261113T030000Z.dump", programs=PROGRAMS)
    names = {path.name for path in tmp_path.iterdir() if path.suffix in (".partial", ".dump")}
    assert names == {"ops-20261113T030000Z.dump", "other-20261106T030000Z.partial"}


def test_rule_4_what_a_killed_run_left_is_dropped(yard: Farmyard) -> None:
    name = f"{conninfo_to_dict(yard.ops_url)['dbname']}_restore_check"
    with psycopg.connect(yard.ops_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with scratch_database(yard.ops_url) as url:
        assert fingerprints(url) == {}
    assert name not in databases(yard.ops_url)


def test_the_runbook_restores_a_backup(yard: Farmyard, tmp_path: Path) -> None:
    """The commands of docs/reference/backups.md, as a person types them."""
    backup = back_up(yard.ops_url, tmp_path / "ops-1.dump", programs=PROGRAMS)
    text = (ROOT / "docs/reference/backups.md").read_text()
    block = text.split("```sh\n")[1].split("```")[0]
    target = f"{conninfo_to_dict(yard.ops_url)['dbname']}_restored"
    environment = {
        "PATH": f"{PROGRAMS}:/usr/bin:/bin",
        "SERVER": make_conninfo(yard.ops_url, dbname="postgres"),
        "TARGET": make_conninfo(yard.ops_url, dbname=target),
        "NAME": target,
        "BACKUP": str(backup.path),
    }
    done = subprocess.run(
        ["sh", "-ec", block], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert fingerprints(environment["TARGET"]) == backup.original
    with psycopg.connect(environment["SERVER"], autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(target)))


def test_a_program_that_fails_says_why(yard: Farmyard, tmp_path: Path) -> None:
    (tmp_path / "not-a-backup").write_text("no")
    with scratch_database(yard.ops_url) as url, pytest.raises(BackupError, match="pg_restore fai"):
        restore(url, tmp_path / "not-a-backup", programs=PROGRAMS)
    with pytest.raises(ConfigurationError, match="ZENTHOS_POSTGRES_BIN"):
        find_program("pg_dump", tmp_path)


def test_a_changed_object_of_the_lake_is_found(yard: Farmyard) -> None:
    [(key,)] = yard.execute("SELECT object_key FROM bronze_objects")
    yard.store.put("zenthos-bronze", key, b"changed")
    result = yard.run("weekly")
    assert not result.success
    refused = [e.description for e in result.get_asset_check_evaluations() if not e.passed]
    assert refused == [f"missing or changed: {key}"]
    yard.store.path("zenthos-bronze", key).unlink()
    assert not yard.run("weekly").success


@pytest.fixture
def vacuuming(yard: Farmyard) -> Iterator[psycopg.Connection]:
    """A connection as the asset uses it."""
    with connect(yard.ops_url, application="test", autocommit=True) as connection:
        yield connection


def outcome(tables: list[Vacuumed], name: str) -> Vacuumed:
    return next(t for t in tables if t.table == f"public.{name}")


def test_vacuum_removes_dead_rows_and_analyses_partitioned_tables(
    yard: Farmyard, vacuuming: psycopg.Connection
) -> None:
    yard.execute("ALTER TABLE farms SET (autovacuum_enabled = false)")
    for _ in range(20):
        yard.execute("UPDATE farms SET owner = owner || 'x'")
    counted = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'farms'"
    wait_until(lambda: yard.execute(counted) == [(20,)])  # once each session has ended
    tables = vacuum_tables(vacuuming)
    farms = outcome(tables, "farms")
    assert (farms.outcome, farms.dead_before > 0, farms.dead_after) == ("done", True, 0)
    [(analysed,)] = yard.execute(
        "SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'raw_messages'"
    )
    assert analysed


def test_vacuum_leaves_what_is_locked(yard: Farmyard, vacuuming: psycopg.Connection) -> None:
    with psycopg.connect(yard.ops_url) as holder:
        holder.execute("LOCK TABLE farms IN ACCESS EXCLUSIVE MODE")
        tables = vacuum_tables(vacuuming, lock_timeout="100ms")
    left_out = {t.table: t.outcome for t in tables if t.left_out}
    assert left_out == {"public.farms": "in use"}


def test_a_table_that_stayed_locked_warns() -> None:
    left = Vacuumed("public.farms", "took too long", 1, 1, 8192, 1800.0)
    result = reached([left])
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == "public.farms: took too long"
