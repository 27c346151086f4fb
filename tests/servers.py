"""The real servers that tests use, each in a folder of its own.

Postgres, Mosquitto, and the two that ingest forwards to: RabbitMQ and Redis.
"""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from zenthos_cli.stack import mosquitto as broker
from zenthos_cli.stack import postgres
from zenthos_cli.stack.launch import give_to_service_user, server_command
from zenthos_cli.stack.packages import ensure_unpacked
from zenthos_core.broker_accounts import set_account

START_TIMEOUT_S = 30.0


HOST = "127.0.0.1"


def accepts_connections(port: int) -> bool:
    """Whether something listens there, on loopback."""
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


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
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._start_timeout_s = start_timeout_s
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
        deadline = time.monotonic() + self._start_timeout_s
        while True:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            while self._process.poll() is None:
                if self._ready():
                    return
                if time.monotonic() > deadline:
                    self.kill()
                    break
                time.sleep(0.02)
            if time.monotonic() > deadline:
                raise RuntimeError(f"server did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)

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


SYSTEM = Path("/")


def debian_root(unpacked: Path, program: str, packages: tuple[str, ...], name: str) -> Path:
    """Where Debian's files of a program are: the system, else packages unpacked there."""
    if (SYSTEM / program).exists():
        return SYSTEM
    ensure_unpacked(unpacked, packages, complete=(unpacked / program).exists, name=name)
    return unpacked


def libraries(root: Path) -> dict[str, str]:
    """The environment in which programs of unpacked packages find their libraries."""
    if root == SYSTEM:
        return {}
    folders = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, folders))}


class RedisServer(ServerProcess):
    """A Redis that has every command on disk before it answers."""

    PROGRAM = "usr/bin/redis-server"
    PACKAGES = ("redis-server",)

    def __init__(self, folder: Path, root: Path) -> None:
        data = folder / "redis"
        data.mkdir()
        give_to_service_user(data)
        self.port = find_free_port()
        self._password = secrets.token_hex(8)
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(data),
            "requirepass": self._password,
            "appendonly": "yes",
            "appendfsync": "always",  # else a kill loses what it has confirmed
            "save": "",
        }
        argv = [str(root / self.PROGRAM)]
        for name, value in options.items():
            argv += [f"--{name}", value]
        super().__init__(
            server_command(argv, death_signal=signal.SIGKILL),
            folder / "redis.log",
            ready=lambda: accepts_connections(self.port),
            stop_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, **libraries(root)},
        )

    @property
    def url(self) -> str:
        """With its password."""
        return f"redis://:{self._password}@{HOST}:{self.port}"


class RabbitServer(ServerProcess):
    """A RabbitMQ node of its own: no cluster, no epmd, one scheduler."""

    PROGRAM = "usr/lib/rabbitmq/bin/rabbitmq-server"
    PACKAGES = ("rabbitmq-server",)

    def __init__(self, root: Path) -> None:
        # Not below a folder that is root's alone: Mnesia asks access(2), which knows no capability.
        self.home = home = Path(tempfile.mkdtemp(prefix="zenthos-rabbitmq-"))
        give_to_service_user(home)
        self.port = find_free_port()
        self._password = secrets.token_hex(8)
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\n"
            f"default_user = test\ndefault_pass = {self._password}\n"
            "vm_memory_high_watermark.absolute = 256MB\n"
            "disk_free_limit.absolute = 10MB\n"
            "log.console = true\nlog.file = false\n"
        )
        super().__init__(
            server_command([str(root / self.PROGRAM), "-noinput"], death_signal=signal.SIGKILL),
            home / "rabbitmq.log",
            ready=lambda: accepts_connections(self.port),
            stop_signal=signal.SIGTERM,
            environment=self._environment_of(home, root),
            start_timeout_s=120,  # five seconds where nothing else runs
        )

    @property
    def url(self) -> str:
        """With its password."""
        return f"amqp://test:{self._password}@{HOST}:{self.port}/"

    def _environment_of(self, home: Path, root: Path) -> dict[str, str]:
        """Everything below `home`; RABBITMQ_ALLOW_INPUT keeps the script from forking."""
        arguments = (
            # a node that is already named, on a fixed port, needs no epmd
            f"-sname rabbit@localhost -start_epmd false -erl_epmd_port {find_free_port()}"
            " -kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +SDio 4"
        )
        return {
            "PATH": f"{self._erlang(home, root)}:{os.defpath}",
            "HOME": str(home),
            "RABBITMQ_ALLOW_INPUT": "yes",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_NODENAME": "rabbit@localhost",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": arguments,
            **libraries(root),
        }

    @staticmethod
    def _erlang(home: Path, root: Path) -> Path:
        """A folder with an `erl` that knows where it is: Debian's is sure to be in /usr/lib."""
        erlang = root / "usr/lib/erlang"
        emulator = next(erlang.glob("erts-*/bin"))
        folder = home / "bin"
        folder.mkdir()
        (folder / "erl").write_text(
            "#!/bin/sh\n"
            f"export ROOTDIR='{erlang}' BINDIR='{emulator}' EMU=beam PROGNAME=erl\n"
            'exec "$BINDIR/erlexec" "$@"\n'
        )
        (folder / "erl").chmod(0o755)
        return folder
