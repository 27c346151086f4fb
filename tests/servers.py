"""The real servers that tests use, each in a folder of its own.

Postgres, Mosquitto, the two that ingest forwards to (RabbitMQ and Redis), and S3.
"""

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
from pydantic import SecretStr

from zenthos_cli.stack import mosquitto as broker
from zenthos_cli.stack import postgres
from zenthos_cli.stack.keys import make_keys
from zenthos_cli.stack.launch import child_command, give_to_service_user, server_command
from zenthos_cli.stack.packages import ensure_unpacked
from zenthos_cli.stack.tls import make_certificates
from zenthos_core import tokens
from zenthos_core.blobs.s3 import S3Access
from zenthos_core.broker_accounts import set_account
from zenthos_core.errors import ConfigurationError
from zenthos_core.tokens import Role

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
TIMESCALEDB = Path(__file__).with_name("timescaledb")
HOST = "127.0.0.1"


def accepts_connections(port: int) -> bool:
    """Whether something listens there, on loopback."""
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


def _ports() -> Iterator[int]:
    """Those of this worker of pytest-xdist, one after another from a random one.

    Below those that the kernel gives to whoever asks for any (ip_local_port_range): it would take
    one before its server listens, or while that is stopped.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + worker % 4 * 5_000
    start = secrets.randbelow(5_000)
    return (first + (start + number) % 5_000 for number in itertools.count())


_PORTS = _ports()


def find_free_port() -> int:
    """A port that nothing listens on and that was not given before."""
    return next(port for port in _PORTS if _can_listen(port))


def _can_listen(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


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
            self._process.wait(STOP_TIMEOUT_S)
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
    """A broker with the project's configuration and its service accounts."""

    def __init__(
        self,
        folder: Path,
        programs: broker.Mosquitto,
        tls: broker.Tls | None = None,
        public_key_file: Path | None = None,
    ) -> None:
        self.host = broker.HOST
        self.port = find_free_port()
        self.username = "svc-ingest"
        self.password = secrets.token_hex(8)
        self.replay_password = secrets.token_hex(8)
        self.broker = broker.Broker(programs, folder / "mosquitto", self.port, tls, public_key_file)
        self.broker.configure()
        set_account(self.broker.password_file, self.username, self.password)
        set_account(self.broker.password_file, "svc-replay", self.replay_password)
        super().__init__(
            self.broker.command(),
            folder / "mosquitto.log",
            ready=self.broker.accepts_connections,
            stop_signal=broker.STOP_SIGNAL,
            environment=self.broker.environment(),
        )

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    def add_accounts(self, accounts: dict[str, str]) -> None:
        """Let these users in, by password; returns once the broker has read them."""
        for user, password in accounts.items():
            set_account(self.broker.password_file, user, password)
        os.kill(self.pid, signal.SIGHUP)

    def add_account(self, user: str, password: str) -> None:
        """Let this user in."""
        self.add_accounts({user: password})


class TokenBroker(MosquittoServer):
    """A broker that checks device tokens and speaks TLS, and the key that signs them."""

    def __init__(self, folder: Path, programs: broker.Mosquitto) -> None:
        assert programs.plugin is not None
        self.keys = folder / "keys"
        make_keys(self.keys, now=time.time())
        make_certificates(self.keys, now=time.time())
        self.ca_file = self.keys / "ca.pem"
        self.tls_port = find_free_port()
        tls = broker.Tls(self.tls_port, self.keys / "broker.pem", self.keys / "broker.key")
        super().__init__(folder, programs, tls, self.keys / "token.pub.pem")

    @property
    def revocations_file(self) -> Path:
        """Device tokens that are void."""
        return self.broker.revocations_file

    def token(
        self,
        device_id: str,
        role: Role = Role.DEVICE,
        *,
        now: float | None = None,
        valid_s: int = 3600,
    ) -> str:
        """A good token of a device, unless the options make it a bad one."""
        private = (self.keys / "token.pem").read_bytes()
        issued = time.time() if now is None else now
        return tokens.issue(private, device_id, role, now=issued, valid_s=valid_s, scopes=["read"])


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


class MotoServer(ServerProcess):
    """S3 over HTTP, in memory: what it holds ends with it."""

    def __init__(self, folder: Path) -> None:
        self.port = find_free_port()
        argv = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]
        super().__init__(
            child_command(argv, death_signal=signal.SIGKILL),
            folder / "moto.log",
            ready=lambda: accepts_connections(self.port),
            stop_signal=signal.SIGTERM,
        )

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{HOST}:{self.port}"

    def access(self, port: int | None = None) -> S3Access:
        """How to reach it, by way of another port if need be."""
        url = f"http://{HOST}:{port or self.port}"
        return S3Access(url, "eu-west-1", "test", SecretStr("test"))
