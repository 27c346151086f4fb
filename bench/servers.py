"""A Postgres and a broker for one benchmark, in a folder that goes away with them."""

import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

from bench.publisher import PASSWORD, USERNAME
from zenthos_cli.stack import mosquitto as broker
from zenthos_cli.stack import postgres
from zenthos_core.broker_accounts import set_accounts
from zenthos_core.database import Database, migrate
from zenthos_core.errors import ConfigurationError

START_S: Final = 30.0
INGEST_USER: Final = "svc-ingest"
DATABASE: Final = "zenthos_ops"
_BENCH_ACL: Final = f"\nuser {USERNAME}\ntopic write zenthos/#\n"


@dataclass(frozen=True)
class Servers:
    """What is running, and where."""

    folder: Path
    database_url: str
    broker: broker.Broker
    ingest_password: str


@contextmanager
def running_servers(unpacked_mosquitto: Path) -> Iterator[Servers]:
    """Start both, and stop them and remove their data at the end.

    Raises:
        ConfigurationError: one of them cannot be had or does not start.
    """
    programs = broker.find_mosquitto(unpacked_mosquitto)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zenthos-bench-")))
        cluster = postgres.PostgresCluster(folder / "postgres", free_port(), secrets.token_hex(8))
        cluster.initialise()
        stack.enter_context(
            _running(cluster.command(), folder, cluster.accepts_connections, postgres.STOP_SIGNAL)
        )
        cluster.create_databases([DATABASE])
        migrate(cluster.url(DATABASE), Database.OPS)
        password = secrets.token_hex(8)
        mosquitto = broker.Broker(programs, folder / "mosquitto", free_port())
        mosquitto.configure()
        set_accounts(mosquitto.password_file, {INGEST_USER: password, USERNAME: PASSWORD})
        with (mosquitto.folder / "acl").open("a") as acl:
            acl.write(_BENCH_ACL)
        stack.enter_context(
            _running(
                mosquitto.command(),
                folder,
                mosquitto.accepts_connections,
                broker.STOP_SIGNAL,
                mosquitto.environment(),
            )
        )
        yield Servers(folder, cluster.url(DATABASE), mosquitto, password)


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.create_server((broker.HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _running(
    command: list[str],
    folder: Path,
    is_ready: Callable[[], bool],
    stop_signal: Signals,
    environment: dict[str, str] | None = None,
) -> Iterator[None]:
    log = folder / "servers.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(is_ready, process, log)
        yield
    finally:
        process.send_signal(stop_signal)
        process.wait(START_S)


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a process that was just started; ConfigurationError with its log where it fails."""
    deadline = time.monotonic() + START_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigurationError(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
