"""Real servers for every test that needs one; safe under pytest-xdist (each worker has its own).

A server that cannot be had skips the test with the reason; in CI (`CI=true`) it fails.
"""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from tests.servers import (
    MosquittoServer,
    MotoServer,
    PostgresServer,
    RabbitServer,
    RedisServer,
    TimescaleServer,
    TokenBroker,
    debian_root,
    find_free_port,
    install_timescaledb,
)
from tests.swupdate import Swupdate
from zenthos_cli.stack.broker_plugin import build_plugin
from zenthos_cli.stack.keys import make_keys
from zenthos_cli.stack.mosquitto import Mosquitto, find_mosquitto
from zenthos_core import lake
from zenthos_core.blobs.s3 import Place, S3Store
from zenthos_core.database import Database, migrate
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings

ROOT = Path(__file__).parent.parent

# An example takes its time where servers run beside it.
hypothesis.settings.register_profile(
    "zenthos", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("zenthos")


def unavailable(reason: object) -> None:
    """Skip where a server is missing; fail in CI, where none may be."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(str(reason))


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    return find_free_port()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A Postgres for all tests of this worker; those that stop or kill one use `own_postgres`."""
    yield from _running_postgres(tmp_path_factory.mktemp("postgres"))


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres of this test's own, to stop, kill and start again."""
    yield from _running_postgres(tmp_path)


def _running_postgres(folder: Path) -> Iterator[PostgresServer]:
    try:
        server = PostgresServer(folder)
    except ConfigurationError as error:
        unavailable(error)
    server.start()
    yield server
    server.stop()


def _execute(server: PostgresServer, statement: sql.Composable) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement)


def migrated_database(server: PostgresServer, database: Database) -> str:
    """URL of a new migrated database on a server."""
    name = f"zenthos_{database}_{secrets.token_hex(4)}"
    _execute(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    migrate(server.url(name), database)
    return server.url(name)


@pytest.fixture(scope="session")
def ops_template(postgres: PostgresServer) -> str:
    """Name of a migrated operational database to copy."""
    return migrated_database(postgres, Database.OPS).rsplit("/", 1)[1]


@pytest.fixture(scope="session")
def analytics_template(postgres: PostgresServer) -> str:
    """Name of a migrated analytical database to copy."""
    return migrated_database(postgres, Database.ANALYTICS).rsplit("/", 1)[1]


@pytest.fixture
def ops_url(postgres: PostgresServer, ops_template: str) -> Iterator[str]:
    """A migrated operational database of this test's own."""
    yield from _copied(postgres, ops_template)


@pytest.fixture
def analytics_url(postgres: PostgresServer, analytics_template: str) -> Iterator[str]:
    """A migrated analytical database of this test's own."""
    yield from _copied(postgres, analytics_template)


def _copied(server: PostgresServer, template: str) -> Iterator[str]:
    name = sql.Identifier(f"test_{secrets.token_hex(6)}")
    original = sql.Identifier(template)
    _execute(server, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, original))
    yield server.url(name.as_string(None).strip('"'))
    _execute(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def own_ops_url(own_postgres: PostgresServer) -> str:
    """A migrated operational database on `own_postgres`."""
    return migrated_database(own_postgres, Database.OPS)


@pytest.fixture
def timescale(tmp_path: Path) -> Iterator[str]:
    """URL of a TimescaleDB of this test's own; the extension is there, the schema is not."""
    folder = ROOT / ".zenthos" / "timescaledb"
    folder.parent.mkdir(exist_ok=True)
    try:
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            installed = install_timescaledb(folder)
    except ConfigurationError as error:
        unavailable(error)
    server = TimescaleServer(tmp_path, installed)
    server.start()
    yield server.url()
    server.stop()


@pytest.fixture(scope="session")
def mosquitto_programs() -> Mosquitto:
    """The broker's programs, of the system or unpacked under .zenthos/."""
    try:
        return find_mosquitto(ROOT / ".zenthos" / "mosquitto")
    except ConfigurationError as error:
        unavailable(error)
        raise


@pytest.fixture
def mosquitto(mosquitto_programs: Mosquitto, tmp_path: Path) -> Iterator[MosquittoServer]:
    """A broker of this test's own."""
    server = MosquittoServer(tmp_path / "broker", mosquitto_programs)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def token_programs(mosquitto_programs: Mosquitto) -> Mosquitto:
    """The broker's programs and the plugin that checks device tokens."""
    try:
        plugin = build_plugin(ROOT / ".zenthos" / "mosquitto-plugin")
    except ConfigurationError as error:
        unavailable(error)
        raise
    return replace(mosquitto_programs, plugin=plugin)


@pytest.fixture
def token_broker(token_programs: Mosquitto, tmp_path: Path) -> Iterator[TokenBroker]:
    """A broker of this test's own that checks device tokens."""
    server = TokenBroker(tmp_path / "token-broker", token_programs)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbitmq_root() -> Path:
    """Where RabbitMQ and Erlang are, of the system or unpacked under .zenthos/."""
    return _debian_root("rabbitmq", RabbitServer)


@pytest.fixture(scope="session")
def redis_root() -> Path:
    """Where Redis is, of the system or unpacked under .zenthos/."""
    return _debian_root("redis", RedisServer)


@pytest.fixture(scope="session")
def swupdate_root() -> Path:
    """Where SWUpdate is, of the system or unpacked under .zenthos/."""
    return _debian_root("swupdate", Swupdate)


def _debian_root(
    folder: str, program: type[RabbitServer] | type[RedisServer] | type[Swupdate]
) -> Path:
    unpacked = ROOT / ".zenthos" / folder
    try:
        return debian_root(unpacked, program.PROGRAM, program.PACKAGES, program.__name__)
    except ConfigurationError as error:
        unavailable(error)
        raise


@pytest.fixture(scope="module")
def rabbitmq(rabbitmq_root: Path) -> Iterator[RabbitServer]:
    """A RabbitMQ for the tests of a module: it takes five seconds to start."""
    server = RabbitServer(rabbitmq_root)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.home)


@pytest.fixture
def redis_server(redis_root: Path, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    server = RedisServer(tmp_path, redis_root)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """An S3 server for all tests of this worker; each takes bucket names of its own."""
    server = MotoServer(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3_place(s3: MotoServer) -> Place:
    """The lake's buckets, created, under names of this test's own."""
    place = Place("", f"test-{secrets.token_hex(4)}-")
    S3Store(place, s3.access()).create_buckets(lake.BUCKETS)
    return place


@pytest.fixture
def settings(
    tmp_path: Path,
    ops_url: str,
    analytics_url: str,
    mosquitto: MosquittoServer,
) -> Settings:
    """Settings with everything of this test: databases, broker, blob store, keys, ports."""
    return make_settings(tmp_path, ops_url, analytics_url, mosquitto)


def make_settings(
    folder: Path,
    ops_url: str,
    analytics_url: str,
    mosquitto: MosquittoServer,
) -> Settings:
    """As the `settings` fixture, for servers that a test chose itself."""
    keys = folder / "keys"
    make_keys(keys, now=time.time())
    ota_port = find_free_port()
    return Settings(
        home=folder / "home",
        database_url=SecretStr(ops_url),
        analytics_database_url=SecretStr(analytics_url),
        blob_url=(folder / "blobs").as_uri(),
        mqtt_host=mosquitto.host,
        mqtt_port=mosquitto.port,
        mqtt_username=mosquitto.username,
        mqtt_password=SecretStr(mosquitto.password),
        mqtt_public_address=f"{mosquitto.host}:{mosquitto.port}",
        mqtt_password_file=mosquitto.broker.password_file,
        mqtt_pid_file=mosquitto.broker.pid_file,
        ingest_metrics_port=find_free_port(),
        ota_port=ota_port,
        ota_url=f"http://127.0.0.1:{ota_port}",
        token_private_key_file=keys / "token.pem",
        token_public_key_file=keys / "token.pub.pem",
        root_public_key_file=keys / "root.pub",
        trusted_keys_file=keys / "keys.json",
        model_signing_key_file=keys / "model.key",
        online_private_key_file=keys / "online.key",
    )
