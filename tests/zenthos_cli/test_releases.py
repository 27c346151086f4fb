"""`zenthos release`, `keygen` and `keys`, against the real server."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from firmware.pack.bundle import build_bundle
from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from zenthos_cli.main import app
from zenthos_core.tokens import Role

DEVICE_CODE = Path(__file__).parents[2] / "firmware/device"
Zenthos = Callable[..., Result]


@pytest.fixture
def served(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        yield running


@pytest.fixture
def zenthos(served: Ota, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Zenthos:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ZENTHOS_OTA_URL", served.settings.ota_url)
    monkeypatch.setenv("ZENTHOS_TOKEN", served.token(Role.ADMIN))
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def sign(zenthos: Zenthos, version: str, key: Path) -> Result:
    options = ["--name", "sensor", "--version", version, "--device-model", "esp32-s3"]
    return zenthos("release", "sign", "s.zip", *options, "--chip", "esp32s3", "--key", str(key))


def test_the_same_sources_give_the_same_bytes() -> None:
    one, two = build_bundle(DEVICE_CODE), build_bundle(DEVICE_CODE)
    assert hashlib.sha256(one).digest() == hashlib.sha256(two).digest()
    assert b"ota.mpy" in one


def test_from_sources_to_a_release_and_back(zenthos: Zenthos, served: Ota) -> None:
    key = served.keys / "firmware.key"
    assert zenthos("release", "build", str(DEVICE_CODE), "--out", "s.zip").exit_code == 0
    assert sign(zenthos, "v1.0.0", key).exit_code == 0
    done = zenthos("release", "publish", "s.zip", "--notes", "first")
    assert done.exit_code == 0, done.output
    listed = json.loads(zenthos("release", "list", "--json").output)
    [release] = [item["id"] for item in listed]
    assert json.loads(zenthos("release", "list", "--version", "v9.9.9", "--json").output) == []
    assert "v1.0.0" in zenthos("release", "show", release).output
    reissued = zenthos("release", "reissue", release, "--key", str(key))
    assert reissued.exit_code == 0, reissued.output
    assert "withdrew" in zenthos("release", "withdraw", release, "--reason", "too old").output
    shown = zenthos("release", "list").output
    assert "withdrawn: too old" in shown
    assert "reissue" in shown


def test_keys_made_rotated_and_revoked(zenthos: Zenthos, served: Ota) -> None:
    folder = ["--folder", str(served.keys)]
    made = zenthos("keygen", "next", *folder)
    key_id = made.output.split()[-1]
    assert zenthos("keygen", "next", *folder).exit_code == 1
    kinds = ["--kind", "firmware-bundle"]
    assert "version 2" in zenthos("keys", "rotate", "next", *kinds, *folder).output
    zenthos("release", "build", str(DEVICE_CODE), "--out", "s.zip")
    sign(zenthos, "v1.0.0", served.keys / "next.key")
    assert zenthos("release", "publish", "s.zip").exit_code == 0
    assert "version 3" in zenthos("keys", "revoke", key_id, *folder).output
    sign(zenthos, "v1.1.0", served.keys / "next.key")
    assert zenthos("release", "publish", "s.zip").exit_code == 1
    assert zenthos("keys", "revoke", key_id, *folder).exit_code == 1
