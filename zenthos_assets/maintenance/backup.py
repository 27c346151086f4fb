"""Backups that are proved by restoring them.

1. A backup is of one snapshot: pg_dump and the fingerprint (rows and digest of each table) see the
   same rows, whatever is written meanwhile.
2. It is restored into a scratch database on the same server. Every table there must have the
   fingerprint of the snapshot; those whose rows were left out must be empty.
3. Only a verified backup takes its name, and only then are backups beyond the newest few removed.
   Another is left as `.partial`, to be looked at, until the next one begins.
4. The scratch database is dropped in the end; what a killed run left, the next one drops first.

Passwords go to the programs by the environment: command lines are open to every user.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from zenthos_core.database import connect
from zenthos_core.errors import ConfigurationError, ZenthosError

HOT_TABLES: Final = ("telemetry_hot", "device_status", "device_logs")
"""Days of what the lake holds for ever; at full load they are nearly all of the database."""

PROGRAM_TIMEOUT_S: Final = 4 * 3600.0
LOCK_WAIT_MS: Final = 60_000

_TABLES: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname !~ '^(pg_|information_schema$|_?timescaledb)'
ORDER BY 1, 2"""
_BELOW: Final = """
WITH RECURSIVE below AS (
  SELECT oid FROM pg_class WHERE relname = ANY(%s) AND relkind IN ('r', 'p')
  UNION SELECT inhrelid FROM pg_inherits JOIN below ON inhparent = below.oid
) SELECT format('%%I.%%I', n.nspname, c.relname) FROM below
JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1"""
_HAS_TIMESCALEDB: Final = "SELECT FROM pg_extension WHERE extname = 'timescaledb'"
_FINGERPRINT: Final = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {} t"


class BackupError(ZenthosError):
    """A backup could not be made or restored."""


@dataclass(frozen=True)
class Fingerprint:
    """Rows of a table and the sum of their hashes: the same for the same rows in any order."""

    rows: int
    digest: int


NOTHING: Final = Fingerprint(0, 0)


@dataclass(frozen=True)
class Backup:
    """A backup, and what came out of it when it was restored."""

    path: Path
    size_bytes: int
    dump_s: float
    restore_s: float
    original: Mapping[str, Fingerprint]
    restored: Mapping[str, Fingerprint]

    @property
    def differing(self) -> list[str]:
        """Tables that did not come back as they were."""
        names = self.original.keys() | self.restored.keys()
        return sorted(n for n in names if self.original.get(n) != self.restored.get(n))


def back_up(
    url: str, path: Path, *, programs: Path | None, leave_out: Sequence[str] = ()
) -> Backup:
    """Back a database up and restore it beside itself (rules 1, 2, 4).

    `path` exists afterwards only where nothing differs. `leave_out` are tables without their rows.

    Raises:
        BackupError: with the words of the program that failed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    for unfinished in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.partial"):
        unfinished.unlink()
    with connect(url, application="backup") as connection:
        began = time.monotonic()
        original = _dump(connection, url, partial, find_program("pg_dump", programs), leave_out)
        dump_s = time.monotonic() - began
        timescaledb = bool(connection.execute(_HAS_TIMESCALEDB).fetchone())
    partial.chmod(0o600)
    began = time.monotonic()
    with scratch_database(url) as scratch_url:
        restore(scratch_url, partial, programs=programs, timescaledb=timescaledb)
        restored = fingerprints(scratch_url)
    restore_s = time.monotonic() - began
    backup = Backup(path, partial.stat().st_size, dump_s, restore_s, original, restored)
    if not backup.differing:
        partial.rename(path)
    return backup


def _dump(
    connection: psycopg.Connection, url: str, path: Path, pg_dump: str, leave_out: Sequence[str]
) -> dict[str, Fingerprint]:
    """Write the backup, and return what it must hold."""
    tables = connection.execute(_TABLES).fetchall()
    below = [name for (name,) in connection.execute(_BELOW, [list(leave_out)])]
    connection.rollback()
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        # Before the snapshot is taken: none of them is dropped until pg_dump is done.
        names = [sql.Identifier(*table) for table in tables]
        locked = sql.SQL(", ").join(names)
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(locked))
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        options = [f"--exclude-table-data={name}" for name in below]
        if row:
            options.append(f"--snapshot={row[0]}")
        options += [f"--lock-wait-timeout={LOCK_WAIT_MS}", f"--file={path}"]
        _run([pg_dump, "--format=custom", *options], url)
        return _fingerprints(connection, tables, empty=frozenset(leave_out))


def restore(url: str, path: Path, *, programs: Path | None, timescaledb: bool = False) -> None:
    """Fill an empty database from a backup; BackupError with the words of pg_restore."""
    pg_restore = find_program("pg_restore", programs)
    with connect(url, application="backup", autocommit=True) as connection:
        if (
            timescaledb
        ):  # https://docs.timescale.com, "Logical backup": its catalogue is restored too
            connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            connection.execute("SELECT timescaledb_pre_restore()")
        _run([pg_restore, "--no-owner", "--no-privileges", "--exit-on-error", str(path)], url)
        if timescaledb:
            connection.execute("SELECT timescaledb_post_restore()")


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """URL of an empty database on the server of another, dropped at the end (rule 4)."""
    name = f"{conninfo_to_dict(url)['dbname']}_restore_check"
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    make = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
    with connect(url, application="backup", autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(make)
        try:
            yield make_conninfo(url, dbname=name)
        finally:
            connection.execute(drop)


def fingerprints(url: str) -> dict[str, Fingerprint]:
    """Rows and digest of every table of a database, partitions counted in their parents."""
    with connect(url, application="backup") as connection:
        return _fingerprints(connection, connection.execute(_TABLES).fetchall())


def remove_old(folder: Path, database: str, keep: int) -> list[Path]:
    """Remove all but the newest backups of a database (rule 3)."""
    removed = sorted(folder.glob(f"{database}-*.dump"))[:-keep]
    for path in removed:
        path.unlink()
    return removed


def backup_name(database: str, now: datetime) -> str:
    """Name of a backup; in the order of time."""
    return f"{database}-{now:%Y%m%dT%H%M%SZ}.dump"


def find_program(name: str, folder: Path | None) -> str:
    """Path of one of Postgres' programs; ConfigurationError where there is none."""
    path = shutil.which(name, path=str(folder) if folder else None)
    if path is None:
        raise ConfigurationError(
            f"{name} is missing in {folder or 'PATH'}: install PostgreSQL's client programs,"
            " of the server's version or later, or name their folder in ZENTHOS_POSTGRES_BIN"
        )
    return path


def _fingerprints(
    connection: psycopg.Connection,
    tables: Sequence[tuple[str, str]],
    empty: frozenset[str] = frozenset(),
) -> dict[str, Fingerprint]:
    found = {}
    for schema, name in tables:
        query = sql.SQL(_FINGERPRINT).format(sql.Identifier(schema, name))
        row = None if name in empty else connection.execute(query).fetchone()
        found[f"{schema}.{name}"] = Fingerprint(int(row[0]), int(row[1])) if row else NOTHING
    return found


def _run(argv: list[str], url: str) -> None:
    """Run one of Postgres' programs on a database; the password goes by the environment."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    password = parameters.pop("password", "")
    try:
        done = subprocess.run(
            [*argv, f"--dbname={make_conninfo('', **parameters)}"],
            env=os.environ | ({"PGPASSWORD": password} if password else {}),
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        hours = PROGRAM_TIMEOUT_S / 3600
        raise BackupError(f"{Path(argv[0]).name} was not done after {hours:g} hours") from None
    if done.returncode != 0:
        raise BackupError(f"{Path(argv[0]).name} failed: {done.stderr.strip()}")
