"""Every setting of the platform, typed, read when asked for and never at import.

Order of precedence: environment, `.env`, what `zenthos up` chose (`.zenthos/stack.env`), defaults.
The names in the environment are these in capitals with `ZENTHOS_` before them.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from zenthos_core.errors import ConfigurationError

STACK_ENV = "stack.env"
"""File in `home` that holds what `zenthos up` chose."""

Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def _hosts(text: str) -> str:
    if not all(re.fullmatch(r"[a-z0-9.-]+|\[[0-9a-f:]+\]", host) for host in _items(text)):
        raise ValueError("name hosts in small letters, without ports: ota.example.com,10.0.0.7")
    return text


def _origins(text: str) -> str:
    if not all(re.fullmatch(r"https?://[a-z0-9.-]+(:\d{1,5})?", item) for item in _items(text)):
        raise ValueError("name each origin whole, as in https://farm.example.com; * is none")
    return text


def _redis(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text and not text.startswith(("redis://", "rediss://")):
        raise ValueError("name a Redis: redis://host:6379/0, or rediss:// for TLS")
    return url


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _none_or_long(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text and (len(text) < 32 or not (text.isascii() and text.isprintable()) or " " in text):
        raise ValueError("take 32 characters or more, random, without blanks")
    return secret


class Settings(BaseSettings):
    """Where everything external is, and how the services behave."""

    model_config = SettingsConfigDict(env_prefix="ZENTHOS_", extra="ignore")

    home: Path = Field(Path(".zenthos"), description="State of the embedded stack.")
    log_level: str = Field("INFO", description="Least severe log level that is written.")

    database_url: SecretStr = Field(
        SecretStr("postgresql://zenthos@127.0.0.1:5433/zenthos_ops"),
        description="Operational database.",
    )
    analytics_database_url: SecretStr = Field(
        SecretStr("postgresql://zenthos@127.0.0.1:5433/zenthos_analytics"),
        description="Analytical database.",
    )
    dagster_database_url: SecretStr = Field(
        SecretStr("postgresql://zenthos@127.0.0.1:5433/dagster"),
        description="Dagster's runs, events and schedules.",
    )
    mlflow_database_url: SecretStr = Field(
        SecretStr("postgresql://zenthos@127.0.0.1:5433/mlflow"),
        description="MLflow's runs and registry.",
    )
    blob_url: str = Field(
        "file:///var/lib/zenthos/blobs",
        description="Object storage: file:///absolute/folder, s3://bucket/folder or s3://.",
    )
    s3_endpoint_url: str = Field("", description="S3 server other than AWS, such as MinIO.")
    s3_public_endpoint_url: str = Field(
        "", description="That server as devices reach it, in download URLs; the same where not set."
    )
    s3_region: str = Field("", description="Region of the buckets; boto3's own where not set.")
    s3_access_key_id: str = Field("", description="S3 account; boto3's own search where not set.")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Its secret key.")

    shards: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Pieces in which the lineage cleans a day, side by side."
    )

    mqtt_host: str = Field("127.0.0.1", description="Broker, as the services reach it.")
    mqtt_port: Port = Field(1883, description="Port of the broker, as the services reach it.")
    mqtt_username: str = Field("svc-ingest", description="Service account of ingest.")
    mqtt_password: SecretStr = Field(SecretStr(""), description="Password of that account.")
    mqtt_replay_username: str = Field(
        "svc-replay", description="Service account of `zenthos errors replay`."
    )
    mqtt_replay_password: SecretStr = Field(
        SecretStr(""), description="Password of that account, too."
    )
    mqtt_public_address: str = Field(
        "127.0.0.1:1883", description="Broker as devices reach it, told to them at registration."
    )
    mqtt_tls_port: Port = Field(8883, description="Port of the embedded broker for TLS.")
    mqtt_ca_file: Path | None = Field(
        None, description="CA certificate (PEM) by which clients know the broker over TLS."
    )
    mqtt_revocations_file: Path | None = Field(
        None,
        description="Revocation list of a broker that checks device tokens; "
        "registration writes to it.",
    )
    mqtt_password_file: Path | None = Field(
        None,
        description="Password file of a broker that does not; registration writes accounts to it.",
    )
    mqtt_pid_file: Path | None = Field(
        None, description="Mosquitto's pid file; it is told to read its accounts again."
    )

    ingest_worker_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")] = Field(
        "1",
        description="Names this worker's session at the broker, its spool and its connections to"
        " the database; stable over restarts, another for each worker: at most 32 of"
        " `A-Z a-z 0-9 _ . -`.",
    )
    ingest_batch_max: Annotated[int, Field(ge=1, le=20_000)] = Field(
        5_000, description="Most messages in one transaction."
    )
    ingest_rate_per_s: Positive = Field(
        1, description="Messages a second that a device may send; what is over goes to the archive."
    )
    ingest_burst: AtLeastOne = Field(
        60, description="Messages that a device may send at once before that rate holds."
    )
    ingest_backlog_rate_per_s: Positive = Field(
        100, description="The same for readings marked `backlog` and messages over a minute old."
    )
    ingest_backlog_burst: AtLeastOne = Field(
        100_000, description="As many of these a device may send at once."
    )
    ingest_database_timeout_s: AtLeastOne = Field(
        60, description="Seconds that the database may take to answer ingest; then it is away."
    )
    ingest_spool_after_s: Annotated[float, Field(ge=0)] = Field(
        60, description="Seconds without the database after which messages go to the local spool."
    )
    ingest_spool_dir: Path | None = Field(
        None, description="Folder of the spool; `spool` in ZENTHOS_HOME where it is not set."
    )
    ingest_spool_max_mb: Annotated[int, Field(ge=0)] = Field(
        2048, description="Most MiB in a worker's spool; 0 leaves everything to the broker."
    )
    ingest_metrics_port: Port = Field(9464, description="Prometheus /metrics of ingest.")
    hot_days: Annotated[int, Field(ge=1, le=90)] = Field(
        7, description="Days of readings kept in telemetry_hot; older ones go to the archive alone."
    )
    historical_days: Annotated[int, Field(ge=1, le=3_650)] = Field(
        90, description="Days of cleaned readings kept in telemetry_historical."
    )

    forward_amqp_url: SecretStr = Field(
        SecretStr(""), description="RabbitMQ that ingest forwards to; none by default."
    )
    forward_redis_url: SecretStr = Field(
        SecretStr(""), description="Redis that ingest forwards to; none by default."
    )
    forward_redis_maxlen: Annotated[int, Field(ge=1_000)] = Field(
        1_000_000, description="Messages that the Redis stream keeps, about."
    )
    forward_max_deliveries: Annotated[int, Field(ge=1, le=1_000)] = Field(
        5, description="Deliveries from a RabbitMQ queue before a message is a dead letter."
    )

    ota_host: str = Field("127.0.0.1", description="Address the OTA server binds to.")
    ota_port: Port = Field(8080, description="Port of the OTA server.")
    ota_url: str = Field("http://127.0.0.1:8080", description="OTA server as others reach it.")
    ddi_tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        "default", description="Tenant in the paths of hawkBit's device API, beside `default`."
    )
    ddi_poll_interval_s: Annotated[int, Field(ge=1, le=86_399)] = Field(
        300, description="Seconds after which clients of that API should ask again."
    )
    ddi_gateway_token: Annotated[SecretStr, AfterValidator(_none_or_long)] = Field(
        SecretStr(""),
        description="GatewayToken that speaks for every device there; none by default.",
    )
    ota_max_connections: Annotated[int, Field(ge=10)] = Field(
        4_096, description="Connections that the OTA server holds at once; others get 503."
    )
    ota_allowed_hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        "",
        description="Names by which the OTA server may be asked, with commas; any where not set.",
    )
    ota_cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        "", description="Origins whose pages may read answers (CORS), with commas; none by default."
    )
    limits_url: Annotated[SecretStr, AfterValidator(_redis)] = Field(
        SecretStr(""),
        description="Redis in which OTA servers count requests together; "
        "each for itself where not set.",
    )
    limits_device_per_hour: NotNegative = Field(
        100, description="Requests of a device to the OTA server, but for binaries; 0 is no limit."
    )
    limits_device_downloads_per_hour: NotNegative = Field(
        5_000, description="Requests of a device for binaries, each range one; 0 is no limit."
    )
    limits_user_per_minute: NotNegative = Field(
        1_000, description="Requests of a user who has logged in; 0 is no limit."
    )
    limits_service_per_minute: NotNegative = Field(
        20_000, description="Requests of a service with a token of its own; 0 is no limit."
    )
    limits_public_per_minute: NotNegative = Field(
        100, description="Requests of an address without a token that holds; 0 is no limit."
    )
    ota_url_expires_s: Annotated[int, Field(ge=10, le=86_400)] = Field(
        300, description="Seconds that a presigned download URL is good for (S3)."
    )
    ota_cache_mb: Annotated[int, Field(ge=0)] = Field(
        32, description="MiB of binaries that a server keeps in memory for downloads."
    )
    ota_downloads: Annotated[int, Field(ge=0)] = Field(
        2_000, description="Downloads that a server sends at once; 0 is no limit."
    )
    ota_device_downloads: Annotated[int, Field(ge=0)] = Field(
        4, description="Downloads of one device at once; 0 is no limit."
    )
    ota_device_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        4_194_304, description="Bytes a second that a device is sent; 0 is no limit."
    )
    ota_device_burst_bytes: Annotated[int, Field(ge=0)] = Field(
        33_554_432, description="Bytes that a device is sent at once before that rate holds."
    )
    ota_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        0, description="Bytes a second that a server sends to all together; 0 is no limit."
    )
    ota_min_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        512, description="Least bytes a second that a client takes, else it is cut; 0 is no limit."
    )
    ota_slow_after_s: Annotated[float, Field(gt=0)] = Field(
        30, description="Seconds that a client may stall before that rate counts."
    )
    github_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Secret of GitHub's webhook; without one, it is not heard."
    )
    github_webhook_previous_secret: SecretStr = Field(
        SecretStr(""), description="The one before it, while the secret is replaced."
    )
    github_asset_hosts: str = Field(
        "github.com,api.github.com,objects.githubusercontent.com,"
        "release-assets.githubusercontent.com",
        description="Hosts (https) or origins that assets of releases may be fetched from.",
    )
    github_token: SecretStr = Field(
        SecretStr(""), description="Token for assets of private repositories; told to GitHub alone."
    )
    github_rollout_percentage: Annotated[int, Field(ge=0, le=100)] = Field(
        100, description="Devices that a release from GitHub is offered to at once."
    )
    github_retry_s: Annotated[float, Field(gt=0, le=300)] = Field(
        5, description="Seconds before assets are asked for again; twice as long each time."
    )
    token_private_key_file: Path = Field(
        Path(".zenthos/keys/token.pem"), description="ES256 key that signs tokens (OTA server)."
    )
    token_public_key_file: Path = Field(
        Path(".zenthos/keys/token.pub.pem"), description="ES256 key that verifies tokens."
    )
    token_previous_public_key_file: Path | None = Field(
        None,
        description="Key that verified tokens before: they hold until they expire (OTA server).",
    )
    service_token: SecretStr = Field(
        SecretStr(""), description="Token with which the lineage publishes releases."
    )
    admin_token: SecretStr = Field(
        SecretStr(""), description="Token with which the command line registers devices."
    )
    token: SecretStr = Field(
        SecretStr(""),
        description="Token with which the command line exports; the one above where not set.",
    )

    root_public_key_file: Path = Field(
        Path(".zenthos/keys/root.pub"), description="Ed25519 key that signs keys.json."
    )
    trusted_keys_file: Path = Field(
        Path(".zenthos/keys/keys.json"), description="Release keys, signed by the root key."
    )
    model_signing_key_file: Path = Field(
        Path(".zenthos/keys/model.key"), description="Ed25519 key that signs models (lineage)."
    )

    ota_sweep_interval_s: Annotated[float, Field(gt=0)] = Field(
        600, description="Seconds between looks for uploads of which no release came."
    )
    online_private_key_file: Path = Field(
        Path(".zenthos/keys/online.key"),
        description="Ed25519 key that signs check-in answers (OTA server).",
    )

    mlflow_url: str = Field("http://127.0.0.1:5000", description="MLflow tracking server.")
    dagster_url: str = Field("http://127.0.0.1:3000", description="Dagster webserver.")
    alert_webhook_url: SecretStr = Field(
        SecretStr(""), description="Receives failures of the lineage as JSON; none by default."
    )
    alert_offline_reports: AtLeastOne = Field(
        3, description="Reports that a device misses before it is an alert; an hour at least."
    )
    low_battery_v: Positive = Field(3.3, description="Battery voltage below which is an alert.")
    update_silent_days: Positive = Field(
        3, description="Days that a device sends data and asks for no update before it is an alert."
    )
    postgres_bin: Path | None = Field(
        None, description="Folder with pg_dump and pg_restore; from PATH where it is not set."
    )
    backup_dir: Path | None = Field(
        None, description="Folder of the backups; `backups` in ZENTHOS_HOME where it is not set."
    )
    backups_kept: Annotated[int, Field(ge=1)] = Field(
        4, description="Newest verified backups that are kept of each database."
    )
    backup_hot: bool = Field(
        False, description="Whether backups hold the hot tables, which the lake holds anyway."
    )
    postgres_port: Port = Field(5433, description="Port of the embedded Postgres.")
    dagster_code_port: Port = Field(4000, description="Port of the embedded Dagster code server.")
    executor: Literal["in_process", "celery", "k8s"] = Field(
        "in_process", description="Where steps are executed: in_process, celery or k8s."
    )
    celery_broker_url: SecretStr = Field(
        SecretStr(""), description="RabbitMQ through which Celery workers get their steps."
    )
    celery_workers: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Workers for building that the embedded stack starts with celery."
    )

    @property
    def allowed_hosts(self) -> list[str]:
        """One by one."""
        return _items(self.ota_allowed_hosts)

    @property
    def cors_origins(self) -> list[str]:
        """One by one."""
        return _items(self.ota_cors_origins)

    @property
    def dagster_port(self) -> int:
        """Port of the Dagster webserver, from its URL."""
        return url_port(self.dagster_url)

    @property
    def mlflow_port(self) -> int:
        """Port of the MLflow server, from its URL."""
        return url_port(self.mlflow_url)


def url_port(url: str) -> int:
    """The port a URL names; ConfigurationError where it names none."""
    _, _, port = url.rstrip("/").rpartition(":")
    if not port.isdecimal():
        raise ConfigurationError(f"{url}: write the port too, such as http://127.0.0.1:3000")
    return int(port)


def load_settings(directory: Path | None = None, *, with_stack: bool = True) -> Settings:
    """Read the settings that hold in a directory (the current one by default).

    `with_stack` false leaves out what `zenthos up` chose: only what the user has set.

    Raises:
        ConfigurationError: naming each setting that is wrong.
    """
    base = directory or Path.cwd()
    try:
        own = Settings(_env_file=base / ".env")
        if not with_stack:
            return own
        home = base / own.home
        return Settings(_env_file=(home / STACK_ENV, base / ".env"))
    except ValidationError as error:
        problems = "; ".join(
            f"ZENTHOS_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
        )
        raise ConfigurationError(problems) from None
