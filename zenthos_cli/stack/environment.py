"""What `zenthos up` chooses: addresses, passwords, keys and tokens, all under one folder.

Secrets and keys are made once and kept; everything else follows from the settings at each start.
"""

import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from pydantic import SecretStr

from zenthos_cli.stack.keys import make_keys, write_private
from zenthos_cli.stack.mosquitto import Broker, Mosquitto, Tls
from zenthos_cli.stack.postgres import PostgresCluster, program
from zenthos_cli.stack.tls import make_certificates
from zenthos_core import tokens
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import STACK_ENV, Settings, load_settings
from zenthos_core.tokens import Role

LOOPBACK: Final = "127.0.0.1"
TOKEN_VALID_S: Final = 365 * 24 * 3600
DATABASES: Final = {
    "database_url": "zenthos_ops",
    "analytics_database_url": "zenthos_analytics",
    "dagster_database_url": "dagster",
    "mlflow_database_url": "mlflow",
}
"""Databases of the embedded Postgres, by the setting that holds their URL."""


def _password() -> str:
    return secrets.token_urlsafe(24)


class Secrets(msgspec.Struct):
    """Passwords of the embedded servers, kept in `secrets.json`."""

    postgres: str
    mqtt: str
    mqtt_replay: str = msgspec.field(default_factory=_password)


@dataclass(frozen=True)
class StackEnvironment:
    """A stack's settings, and which of its servers are its own."""

    directory: Path
    """Where `zenthos` was called; services run here."""

    home: Path
    settings: Settings
    secrets: Secrets
    chosen: frozenset[str]
    """Settings that the user has set, in the environment or `.env`."""

    def cluster(self) -> PostgresCluster:
        """The embedded Postgres."""
        port = self.settings.postgres_port
        return PostgresCluster(self.home / "postgres", port, self.secrets.postgres)

    def broker(self, mosquitto: Mosquitto) -> Broker:
        """The embedded broker."""
        keys = self.home / "keys"
        return Broker(
            mosquitto,
            self.home / "broker",
            self.settings.mqtt_port,
            Tls(self.settings.mqtt_tls_port, keys / "broker.pem", keys / "broker.key"),
            self.settings.token_public_key_file,
        )

    @property
    def own_postgres(self) -> bool:
        """Whether any database is left to the embedded Postgres."""
        return not DATABASES.keys() <= self.chosen

    @property
    def own_broker(self) -> bool:
        """Whether no other broker was named."""
        return self.settings.mqtt_host == LOOPBACK

    @property
    def variables(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {
            f"ZENTHOS_{name.upper()}": text
            for name in Settings.model_fields
            if (text := _as_text(getattr(self.settings, name)))
        }


def prepare_environment(directory: Path, *, device_tokens: bool = False) -> StackEnvironment:
    """Make what is missing, write `stack.env`, and return what holds now.

    `device_tokens`: whether the embedded broker checks them.

    Raises:
        ConfigurationError: for a setting that is wrong.
    """
    wanted = load_settings(directory, with_stack=False)
    home = (directory / wanted.home).resolve()
    home.mkdir(parents=True, exist_ok=True)
    kept = _keep_secrets(home / "secrets.json")
    make_keys(home / "keys", now=time.time())
    make_certificates(home / "keys", now=time.time())
    values = _defaults(wanted, home, kept) | _device_accounts(home / "broker", device_tokens)
    values |= {name: getattr(wanted, name) for name in wanted.model_fields_set}
    settings = Settings.model_construct(**(wanted.model_dump() | values | {"home": home}))
    environment = StackEnvironment(
        directory, home, settings, kept, frozenset(wanted.model_fields_set)
    )
    lines = [f"{name}={value}\n" for name, value in environment.variables.items()]
    head = "# Written by `zenthos up` at each start; to change a value, set it in .env.\n"
    write_private(home / STACK_ENV, (head + "".join(lines)).encode())
    return environment


def _defaults(wanted: Settings, home: Path, kept: Secrets) -> dict[str, object]:
    """Values for the settings that the user has left open."""
    keys = home / "keys"
    cluster = PostgresCluster(home / "postgres", wanted.postgres_port, kept.postgres)
    admin = _token(keys, "admin", Role.ADMIN, ["read", "publish", "rollback"])
    service = _token(keys, "svc-lineage", Role.OPERATOR, ["read", "publish"])
    return {
        **{name: SecretStr(cluster.url(database)) for name, database in DATABASES.items()},
        "postgres_bin": Path(program("pg_dump")).parent,
        "blob_url": (home / "blobs").as_uri(),
        "mqtt_password": SecretStr(kept.mqtt),
        "mqtt_replay_password": SecretStr(kept.mqtt_replay),
        "mqtt_public_address": f"{wanted.mqtt_host}:{wanted.mqtt_port}",
        "mqtt_ca_file": keys / "ca.pem",
        "ota_url": f"http://{LOOPBACK}:{wanted.ota_port}",
        "token_private_key_file": keys / "token.pem",
        "token_public_key_file": keys / "token.pub.pem",
        "admin_token": SecretStr(admin),
        "service_token": SecretStr(service),
        "root_public_key_file": keys / "root.pub",
        "trusted_keys_file": keys / "keys.json",
        "model_signing_key_file": keys / "model.key",
        "online_private_key_file": keys / "online.key",
    }


def _device_accounts(broker: Path, device_tokens: bool) -> dict[str, object]:
    """Where registration tells the embedded broker of a device."""
    if device_tokens:
        return {"mqtt_revocations_file": broker / "revocations"}
    return {
        "mqtt_password_file": broker / "passwords",
        "mqtt_pid_file": broker / "data" / "mosquitto.pid",
    }


def _keep_secrets(path: Path) -> Secrets:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Secrets)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path} is damaged ({error}): restore it") from None
    except FileNotFoundError:
        if (path.parent / "postgres").exists():
            raise ConfigurationError(
                f"{path} is missing, and with it the password of {path.parent / 'postgres'}:"
                " restore it, or remove that folder to begin anew"
            ) from None
        kept = Secrets(postgres=_password(), mqtt=_password())
    write_private(path, msgspec.json.encode(kept))  # with what an older file did not hold
    return kept


def _token(keys: Path, subject: str, role: Role, scopes: list[str]) -> str:
    private = (keys / "token.pem").read_bytes()
    now = time.time()
    return tokens.issue(private, subject, role, now=now, valid_s=TOKEN_VALID_S, scopes=scopes)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
