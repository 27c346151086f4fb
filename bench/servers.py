"""A Postgres, a broker and ingest for one benchmark, in a folder that goes away with them."""

import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.messages import PASSWORD, USERNAME
from bench.process import BenchError
from zenthos_cli.stack import mosquitto as broker
from zenthos_cli.stack import postgres
from zenthos_cli.stack.broker_plugin import build_plugin
from zenthos_cli.stack.keys import make_keys
from zenthos_cli.stack.probes import http_ok
from zenthos_core import mqtt
from zenthos_core.broker_accounts import set_accounts
from zenthos_core.database import Database, migrate
from zenthos_core.errors import ConfigurationError

MOSQUITTO: Final = Path(".zenthos/mosquitto")
"""Where its packages are unpacked unless it is installed."""

START_S: Final = 30.0
STOP_S: Final = 120.0
LOG_TAIL: Final = 2_000
"""Characters that an error shows."""

INGEST_USER: Final = "svc-ingest"
INGEST_SESSION: Final = "zenthos-ingest-1"
DATABASE: Final = "zenthos_ops"
_BENCH_ACL: Final = f"\nuser {USERNAME}\ntopic write zenthos/#\n"

# The limiter runs and lets everything through: a bench asks what the machine can do.
_NO_LIMIT: Final = "1000000000"
_INGEST_ENVIRONMENT: Final = {
    "ZENTHOS_INGEST_RATE_PER_S": _NO_LIMIT,
    "ZENTHOS_INGEST_BURST": _NO_LIMIT,
    "ZENTHOS_INGEST_BACKLOG_RATE_PER_S": _NO_LIMIT,
    "ZENTHOS_INGEST_BACKLOG_BURST": _NO_LIMIT,
}


class Server:
    """A server as a child process that is started and stopped, also more than once."""

    def __init__(
        self,
        name: str,
        command: list[str],
        folder: Path,
        *,
        is_ready: Callable[[], bool],
        stop_signal: signal.Signals,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._is_ready = is_ready
        self._stop_signal = stop_signal
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ConfigurationError(f"{self._command!r} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it is ready; ConfigurationError with its log where it fails."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ConfigurationError(f"{self._command!r} did not start:\n{self.log_tail()}")
            time.sleep(0.01)

    def log_tail(self) -> str:
        """How its log ends."""
        return self._log.read_text(errors="replace")[-LOG_TAIL:]

    def stop(self) -> None:
        """Stop it in good order, if it runs."""
        if self._process is not None:
            self._process.send_signal(self._stop_signal)
            self._process.wait(STOP_S)
            self._process = None


@dataclass(frozen=True)
class Servers:
    """What is running, and where."""

    folder: Path
    postgres: Server
    mosquitto: Server
    database_url: str
    broker: broker.Broker
    ingest_password: str


@contextmanager
def running_servers(
    unpacked_mosquitto: Path, postgres_settings: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Start both, and stop them and remove their data at the end.

    Raises:
        ConfigurationError: one of them cannot be had or does not start.
    """
    _raise_file_limit()
    unpacked = unpacked_mosquitto.resolve()
    plugin = build_plugin(unpacked.with_name("mosquitto-plugin"))
    programs = replace(broker.find_mosquitto(unpacked), plugin=plugin)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zenthos-bench-")))
        database, url = stack.enter_context(running_postgres(folder, postgres_settings))
        configuration, password = _configure_broker(programs, folder / "mosquitto")
        mosquitto = Server(
            "mosquitto",
            configuration.command(),
            folder,
            is_ready=configuration.accepts_connections,
            stop_signal=broker.STOP_SIGNAL,
            environment=configuration.environment(),
        )
        stack.callback(mosquitto.stop)
        mosquitto.start()
        yield Servers(folder, database, mosquitto, url, configuration, password)


@contextmanager
def running_postgres(
    folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[Server, str]]:
    """Postgres with a migrated operational database, and the URL of that; stopped at the end.

    Raises:
        ConfigurationError: it cannot be had or does not start.
    """
    cluster = postgres.PostgresCluster(folder / "postgres", free_port(), secrets.token_hex(8))
    cluster.initialise()
    database = Server(
        "postgres",
        cluster.command(settings),
        folder,
        is_ready=cluster.accepts_connections,
        stop_signal=postgres.STOP_SIGNAL,
    )
    try:
        database.start()
        cluster.create_databases([DATABASE])
        migrate(cluster.url(DATABASE), Database.OPS)
        yield database, cluster.url(DATABASE)
    finally:
        database.stop()


def _configure_broker(programs: broker.Mosquitto, folder: Path) -> tuple[broker.Broker, str]:
    """The project's configuration with an account for the bench; also ingest's password.

    The plugin is asked about every connection and message, as in the stack.
    """
    keys = folder.with_name("keys")
    make_keys(keys, now=time.time())
    configuration = broker.Broker(
        programs, folder, free_port(), public_key_file=keys / "token.pub.pem"
    )
    password = secrets.token_hex(8)
    configuration.configure()
    set_accounts(configuration.password_file, {INGEST_USER: password, USERNAME: PASSWORD})
    with (folder / "acl").open("a") as acl:
        acl.write(_BENCH_ACL)
    return configuration, password


@contextmanager
def running_ingest(
    servers: Servers, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`python -m ingest`, ready; afterwards the broker has forgotten its session."""
    port = free_port()
    variables = {
        "ZENTHOS_DATABASE_URL": servers.database_url,
        "ZENTHOS_MQTT_PORT": str(servers.broker.port),
        "ZENTHOS_MQTT_USERNAME": INGEST_USER,
        "ZENTHOS_MQTT_PASSWORD": servers.ingest_password,
        "ZENTHOS_INGEST_METRICS_PORT": str(port),
    }
    ingest = Server(
        "ingest",
        [sys.executable, "-m", "ingest"],
        servers.folder,
        is_ready=http_ok(f"http://{broker.HOST}:{port}/health/ready"),
        stop_signal=signal.SIGTERM,
        environment={**os.environ, **variables, **_INGEST_ENVIRONMENT, **(environment or {})},
    )
    try:
        ingest.start()
        yield ingest
    except BenchError as error:
        raise BenchError(f"{error}; the log of ingest ends with:\n{ingest.log_tail()}") from None
    finally:
        ingest.stop()
        end_session(servers, INGEST_SESSION)


def end_session(servers: Servers, client_id: str) -> None:
    """Make the broker forget a session, so that it collects nothing of the next run."""
    with socket.create_connection((broker.HOST, servers.broker.port)) as connection:
        connection.sendall(
            mqtt.encode_connect(
                client_id, INGEST_USER, servers.ingest_password, keep_alive_s=0, clean_start=True
            )
        )
        connection.recv(4096)
        connection.sendall(mqtt.DISCONNECT)


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.create_server((broker.HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _raise_file_limit() -> None:
    """A connection of a device takes a file, here and at the broker, which inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
