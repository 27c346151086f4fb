"""The real server on a real database, and what clients of each role send it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from pydantic import SecretStr

from ota_api.app import create_app
from ota_api.server import server_config
from tests.conftest import migrated_database
from tests.ota_api.releases import Signer
from tests.servers import MotoServer, PostgresServer, find_free_port
from zenthos_cli.stack.keys import make_keys
from zenthos_core import tokens
from zenthos_core.blobs.s3 import Place
from zenthos_core.database import Database
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

DEVICE_ID = "field-sensor-001"
DEVICE_MODEL = "esp32-s3"
HOOK_SECRET = "secret of the webhook"


@contextmanager
def serving(settings: Settings) -> Iterator[None]:
    """The server in a thread, ready to answer."""
    app = create_app(settings)
    server = uvicorn.Server(server_config(app, settings))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Ota:
    """A running server, and ways to speak to it."""

    settings: Settings
    keys: Path
    http: httpx.Client
    signer: Signer
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, role: Role, subject: str = "someone", **options: Any) -> str:
        """A good token, unless the options make it a bad one."""
        scopes = {
            Role.ADMIN: ["read", "publish", "rollback"],
            Role.OPERATOR: ["read", "publish"],
            Role.VIEWER: ["read"],
            Role.DEVICE: ["read"],
        }
        defaults = {"now": time.time(), "valid_s": 3600, "scopes": scopes[role]}
        private = self.settings.token_private_key_file.read_bytes()
        return tokens.issue(private, subject, role, **{**defaults, **options})

    def headers(self, role: Role | None, subject: str = "someone") -> dict[str, str]:
        """Authorization of a role, or of nobody."""
        return {} if role is None else {"Authorization": f"Bearer {self.token(role, subject)}"}

    def send(
        self, method: str, path: str, role: Role | None = Role.ADMIN, **options: Any
    ) -> httpx.Response:
        """A request of a role, as the device DEVICE_ID where it is a device."""
        subject = DEVICE_ID if role is Role.DEVICE else "someone"
        headers = self.headers(role, subject) | options.pop("headers", {})
        return self.http.request(method, path, headers=headers, **options)

    def register(self, device_id: str = DEVICE_ID, **changes: Any) -> httpx.Response:
        """Register a device at the farm `North`."""
        body = {
            "device_id": device_id,
            "device_model": DEVICE_MODEL,
            "device_type": "soil_sensor",
            "farm_name": "North",
            **changes,
        }
        return self.send("POST", "/devices/register", json=body)

    def publish(self, release: dict[str, Any], *, path: str | None = None) -> httpx.Response:
        """Publish a body made by the signer."""
        return self.send("POST", path or "/models/publish", Role.OPERATOR, json=release)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds."""
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            return connection.execute(query.encode()).fetchall()


def make_ota_settings(folder: Path, database_url: str) -> Settings:
    """Settings of a server with everything in one folder; no broker runs."""
    keys = folder / "keys"
    make_keys(keys, now=time.time())
    port = find_free_port()
    return Settings(
        home=folder / "home",
        database_url=SecretStr(database_url),
        blob_url=(folder / "blobs").as_uri(),
        mqtt_password_file=folder / "passwords",
        mqtt_pid_file=folder / "mosquitto.pid",
        ota_port=port,
        ota_url=f"http://127.0.0.1:{port}",
        github_webhook_secret=SecretStr(HOOK_SECRET),
        token_private_key_file=keys / "token.pem",
        token_public_key_file=keys / "token.pub.pem",
        root_public_key_file=keys / "root.pub",
        trusted_keys_file=keys / "keys.json",
        model_signing_key_file=keys / "model.key",
        online_private_key_file=keys / "online.key",
    )


def on_s3(settings: Settings, server: MotoServer, place: Place) -> Settings:
    """The same, with its blob store on S3."""
    access = server.access()
    update = {
        "blob_url": f"s3://?prefix={place.prefix}",
        "s3_endpoint_url": access.endpoint_url,
        "s3_region": access.region,
        "s3_access_key_id": access.access_key_id,
        "s3_secret_access_key": access.secret_access_key,
    }
    return settings.model_copy(update=update)


@contextmanager
def running_ota(settings: Settings) -> Iterator[Ota]:
    """A server, and a client of it."""
    keys = settings.trusted_keys_file.parent
    with (
        serving(settings),
        httpx.Client(base_url=settings.ota_url, timeout=20, trust_env=False) as client,
    ):
        yield Ota(settings, keys, client, Signer(keys))


@pytest.fixture
def ota_settings(tmp_path: Path, ops_url: str) -> Settings:
    """Settings of a server of this test's own."""
    return make_ota_settings(tmp_path, ops_url)


@pytest.fixture
def ota(ota_settings: Settings) -> Iterator[Ota]:
    """A server of this test's own."""
    with running_ota(ota_settings) as running:
        yield running


@pytest.fixture(scope="module")
def shared_ota(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Ota]:
    """A server with a device and a model, for tests of a module that leave no trace in it."""
    url = migrated_database(postgres, Database.OPS)
    with running_ota(make_ota_settings(tmp_path_factory.mktemp("ota"), url)) as running:
        running.register()
        running.publish(running.signer.model())
        yield running
