"""The stack with its lake on S3."""

import os
from pathlib import Path

import pytest
import yaml

from tests.servers import MotoServer
from zenthos_cli.stack.environment import StackEnvironment, prepare_environment
from zenthos_cli.stack.object_storage import aws_variables, compute_logs, create_buckets
from zenthos_cli.stack.services import plan_services, prepare_services
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.errors import BlobStoreError
from zenthos_core.settings import Settings

NO_SERVERS = {
    "ZENTHOS_DATABASE_URL": "postgresql://db.example/ops",
    "ZENTHOS_ANALYTICS_DATABASE_URL": "postgresql://db.example/analytics",
    "ZENTHOS_DAGSTER_DATABASE_URL": "postgresql://db.example/dagster",
    "ZENTHOS_MLFLOW_DATABASE_URL": "postgresql://db.example/mlflow",
    "ZENTHOS_MQTT_HOST": "broker.example",
}


@pytest.fixture
def environment(
    tmp_path: Path, s3: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> StackEnvironment:
    for name in os.environ:
        if name.startswith("ZENTHOS_"):
            monkeypatch.delenv(name)
    bucket = f"test-{tmp_path.name}".lower().replace("_", "-")[:60]
    chosen = NO_SERVERS | {
        "ZENTHOS_BLOB_URL": f"s3://{bucket}/farm",
        "ZENTHOS_S3_ENDPOINT_URL": s3.url,
        "ZENTHOS_S3_ACCESS_KEY_ID": "test",
        "ZENTHOS_S3_SECRET_ACCESS_KEY": "test-secret",
    }
    (tmp_path / ".env").write_text("".join(f"{k}={v}\n" for k, v in chosen.items()))
    return prepare_environment(tmp_path)


def test_up_creates_the_buckets(environment: StackEnvironment) -> None:
    store = store_of(environment.settings)
    with pytest.raises(BlobStoreError, match="NoSuchBucket"):
        store.put(lake.GOLD, "x", b"")
    prepare_services(environment, None)
    prepare_services(environment, None)
    store.put(lake.GOLD, "x", b"1")
    assert store.get(lake.GOLD, "x") == b"1"


def test_up_sends_compute_logs_to_s3(environment: StackEnvironment, s3: MotoServer) -> None:
    prepare_services(environment, None)
    text = (environment.home / "dagster/dagster.yaml").read_text()
    config = yaml.safe_load(text)["compute_logs"]["config"]
    assert config["endpoint_url"] == s3.url
    assert config["bucket"] == environment.settings.blob_url.split("/")[2]
    assert config["prefix"] == "farm/zenthos-logs/compute_logs"
    assert "test-secret" not in text
    services = {service.name: service for service in plan_services(environment, None)}
    for name in ("dagster-code", "dagster-daemon", "dagster-webserver"):
        assert services[name].environment["AWS_SECRET_ACCESS_KEY"] == "test-secret"
    assert "AWS_SECRET_ACCESS_KEY" not in services["ingest"].environment


def test_a_bucket_for_each() -> None:
    settings = Settings(blob_url="s3://?prefix=acme-", s3_region="eu-central-1")
    config = yaml.safe_load(compute_logs(settings, Path("/logs")))["compute_logs"]["config"]
    assert (config["bucket"], config["prefix"]) == ("acme-zenthos-logs", "compute_logs")
    assert "endpoint_url" not in config
    assert aws_variables(settings) == {"AWS_DEFAULT_REGION": "eu-central-1"}


def test_a_folder_needs_nothing(tmp_path: Path) -> None:
    settings = Settings(blob_url=tmp_path.as_uri())
    create_buckets(settings)
    assert compute_logs(settings, tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
