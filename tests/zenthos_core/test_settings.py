"""Settings: where they come from, and what is said of wrong ones."""

from pathlib import Path

import pytest

from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings, load_settings, url_port


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ZENTHOS_{name.upper()}", raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(tmp_path).ota_port == 8080
    write(tmp_path / ".zenthos/stack.env", "ZENTHOS_OTA_PORT=1001\nZENTHOS_MQTT_PORT=2001\n")
    assert load_settings(tmp_path).ota_port == 1001
    write(tmp_path / ".env", "ZENTHOS_OTA_PORT=1002\n")
    assert load_settings(tmp_path).ota_port == 1002
    monkeypatch.setenv("ZENTHOS_OTA_PORT", "1003")
    settings = load_settings(tmp_path)
    assert (settings.ota_port, settings.mqtt_port) == (1003, 2001)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ZENTHOS_OTA_PORT=many", "ZENTHOS_OTA_PORT"),
        ("ZENTHOS_OTA_PORT=0", "greater than or equal to 1"),
        ("ZENTHOS_HOT_DAYS=-1", "ZENTHOS_HOT_DAYS"),
        ("ZENTHOS_INGEST_BATCH_MAX=9999999", "ZENTHOS_INGEST_BATCH_MAX"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, line: str, words: str) -> None:
    write(tmp_path / ".env", line + "\n")
    with pytest.raises(ConfigurationError, match=words):
        load_settings(tmp_path)


def test_secrets_are_not_shown() -> None:
    settings = Settings(
        database_url="postgresql://u:hunter2@h/d", service_token="hunter2", admin_token="hunter2"
    )
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_ports_of_urls() -> None:
    assert url_port("http://127.0.0.1:3000/") == 3000
    assert Settings().dagster_port == 3000
    with pytest.raises(ConfigurationError, match="write the port"):
        url_port("http://localhost")
