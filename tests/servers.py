"""The real servers that tests use: Postgres and Mosquitto, each in a folder of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from zenthos_cli.stack import mosquitto as broker
from zenthos_cli.stack import postgres
from zenthos_cli.stack.launch import server_command
from zenthos_core.broker_accounts import set_account
from zenthos_core.errors import ConfigurationError

START_TIMEOUT_S = 30.0
TIMESCALEDB = Path(__file__).with_name("timescaledb")


def find_free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class ServerProcess:
    """A server as a child process that tests start, stop and kill."""

    def __init__(
        self,
        command: list[str],
        log: Path,
        *,
        ready: Callable[[], bool],
        stop_signal: signal.Signals,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self._ready = ready
        self._stop_signal = stop_signal
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "not running"
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it is ready; again, while what a kill left behind is still there."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            process = self.launch()
            while process.poll() is None:
                if self._ready():
                    return
                if time.monotonic() > deadline:
                    self.kill()
                    break
                time.sleep(0.02)
            if time.monotonic() > deadline:
                raise RuntimeError(f"server did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """Stop it as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it, as a machine that swaps or a stalled disk would."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(with_signal)
        try:
            self._process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class PostgresServer(ServerProcess):
    """A Postgres of the wheel, empty at first."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.cluster = postgres.PostgresCluster(
            folder / "postgres", find_free_port(), secrets.token_hex(8), durable=durable
        )
        self.cluster.initialise()
        super().__init__(
            self.cluster.command(),
            folder / "postgres.log",
            ready=self.cluster.accepts_connections,
            stop_signal=postgres.STOP_SIGNAL,
        )

    def url(self, database: str = "postgres") -> str:
        """libpq URL of one database."""
        return self.cluster.url(database)


class TimescaleServer(ServerProcess):
    """TimescaleDB on WebAssembly: in memory, one session, created in its only database."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.port = find_free_port()
        argv = ["node", str(TIMESCALEDB / "server.mjs"), str(installed), str(self.port)]
        super().__init__(
            server_command(argv, death_signal=signal.SIGTERM),
            folder / "timescaledb.log",
            ready=self.accepts_connections,
            stop_signal=signal.SIGTERM,
        )

    def url(self) -> str:
        """libpq URL; whatever the password."""
        return f"postgresql://postgres:none@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def accepts_connections(self) -> bool:
        """Whether it can be used now."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def install_timescaledb(folder: Path) -> Path:
    """Install the locked npm package where it is not yet; its install scripts are not run.

    Raises:
        ConfigurationError: where Node or the package cannot be had.
    """
    lock = TIMESCALEDB / "package-lock.json"
    if not (shutil.which("node") and shutil.which("npm")):
        raise ConfigurationError("TimescaleDB's tests need node and npm: install nodejs and npm")
    done = folder / "node_modules/.package-lock.json"
    if done.exists() and (folder / lock.name).read_bytes() == lock.read_bytes():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", lock.name):
        shutil.copy(TIMESCALEDB / name, folder)
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    npm = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if npm.returncode != 0:
        raise ConfigurationError(f"TimescaleDB's npm package is missing: {npm.stderr.strip()}")
    return folder


class MosquittoServer(ServerProcess):
    """A broker with the project's configuration and the service account of ingest."""

    def __init__(self, folder: Path, programs: broker.Mosquitto) -> None:
        self.host = broker.HOST
        self.port = find_free_port()
        self.username = "svc-ingest"
        self.password = secrets.token_hex(8)
        self.broker = broker.Broker(programs, folder / "mosquitto", self.port)
        self.broker.configure()
        set_account(self.broker.password_file, self.username, self.password)
        super().__init__(
            self.broker.command(),
            folder / "mosquitto.log",
            ready=self.broker.accepts_connections,
            stop_signal=broker.STOP_SIGNAL,
            environment=self.broker.environment(),
        )

    def add_accounts(self, accounts: dict[str, str]) -> None:
        """Let these users in, by password; returns once the broker has read them."""
        for user, password in accounts.items():
            set_account(self.broker.password_file, user, password)
        os.kill(self.pid, signal.SIGHUP)

    def add_account(self, user: str, password: str) -> None:
        """Let this user in."""
        self.add_accounts({user: password})
