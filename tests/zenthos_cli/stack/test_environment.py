"""What `zenthos up` writes for everyone else to read."""

import os
import stat
from pathlib import Path

import pytest

from zenthos_cli.stack.environment import prepare_environment
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import load_settings
from zenthos_core.tokens import Role, verify


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ZENTHOS_"):
            monkeypatch.delenv(name)


def test_others_read_what_was_chosen(tmp_path: Path) -> None:
    chosen = prepare_environment(tmp_path).settings
    read = load_settings(tmp_path)
    assert read == chosen
    assert read.database_url.get_secret_value().endswith("@127.0.0.1:5433/zenthos_ops")
    assert read.blob_url == (tmp_path / ".zenthos/blobs").as_uri()
    assert read.postgres_bin is not None
    assert (read.postgres_bin / "pg_restore").exists()


@pytest.mark.parametrize("name", ["stack.env", "secrets.json"])
def test_secrets_are_their_owners_alone(tmp_path: Path, name: str) -> None:
    prepare_environment(tmp_path)
    assert stat.S_IMODE((tmp_path / ".zenthos" / name).stat().st_mode) == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    assert prepare_environment(tmp_path).secrets == prepare_environment(tmp_path).secrets


def test_a_lost_password_is_said_before_anything_starts(tmp_path: Path) -> None:
    home = prepare_environment(tmp_path).home
    (home / "postgres").mkdir()
    (home / "secrets.json").write_bytes(b"{")
    with pytest.raises(ConfigurationError, match="damaged"):
        prepare_environment(tmp_path)
    (home / "secrets.json").unlink()
    with pytest.raises(ConfigurationError, match="remove that folder"):
        prepare_environment(tmp_path)


def test_no_two_stacks_share_a_password(tmp_path: Path) -> None:
    one, two = (prepare_environment(tmp_path / name).secrets for name in ("one", "two"))
    assert {one.postgres, one.mqtt}.isdisjoint({two.postgres, two.mqtt})


def test_a_port_moves_every_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENTHOS_POSTGRES_PORT", "6000")
    (tmp_path / ".env").write_text("ZENTHOS_OTA_PORT=6001\nZENTHOS_MQTT_PORT=6002\n")
    prepare_environment(tmp_path)
    monkeypatch.delenv("ZENTHOS_POSTGRES_PORT")
    read = load_settings(tmp_path)
    assert ":6000/" in read.database_url.get_secret_value()
    assert read.ota_url == "http://127.0.0.1:6001"
    assert read.mqtt_public_address == "127.0.0.1:6002"


def test_a_port_that_is_no_longer_set_moves_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENTHOS_OTA_PORT", "6001")
    prepare_environment(tmp_path)
    monkeypatch.delenv("ZENTHOS_OTA_PORT")
    assert prepare_environment(tmp_path).settings.ota_url == "http://127.0.0.1:8080"


def test_what_the_user_names_is_not_embedded(tmp_path: Path) -> None:
    assert prepare_environment(tmp_path).own_postgres
    urls = ("DATABASE_URL", "ANALYTICS_DATABASE_URL", "DAGSTER_DATABASE_URL", "MLFLOW_DATABASE_URL")
    lines = [f"ZENTHOS_{name}=postgresql://db.example/x" for name in urls]
    (tmp_path / ".env").write_text("\n".join([*lines, "ZENTHOS_MQTT_HOST=broker.example"]))
    environment = prepare_environment(tmp_path)
    assert not environment.own_postgres
    assert not environment.own_broker
    assert environment.settings.mqtt_public_address == "broker.example:1883"


def test_tokens_carry_no_more_than_they_must(tmp_path: Path) -> None:
    settings = prepare_environment(tmp_path).settings
    public = settings.token_public_key_file.read_bytes()
    service = verify(public, settings.service_token.get_secret_value())
    admin = verify(public, settings.admin_token.get_secret_value())
    assert "publish" in service.scopes
    assert service.role is not Role.ADMIN
    assert admin.role is Role.ADMIN


def test_a_home_elsewhere_is_found_again(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ZENTHOS_HOME=elsewhere\n")
    chosen = prepare_environment(tmp_path).settings
    assert chosen.home == tmp_path / "elsewhere"
    assert load_settings(tmp_path).admin_token == chosen.admin_token
