"""Rules of zenthos_cli/updating.py, by number, against the real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota, make_ota_settings, running_ota
from tests.ota_api.releases import bundle
from zenthos_cli.updating import UpdatingDevice
from zenthos_core.signing import read_key

PUBLISH = "/firmware/publish"


@pytest.fixture
def ota(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    """A server with one device."""
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        yield running


@pytest.fixture
def device(ota: Ota, tmp_path: Path) -> UpdatingDevice:
    """A registered device that left the factory with v1.0.0."""
    made = again(ota, tmp_path)
    made.flash("v1.0.0")
    return made


def again(ota: Ota, tmp_path: Path) -> UpdatingDevice:
    """The device after a restart, or a new one."""
    return UpdatingDevice(
        ota.settings.ota_url,
        DEVICE_ID,
        DEVICE_MODEL,
        ota.register().json()["jwt_token"],
        read_key(ota.settings.root_public_key_file),
        tmp_path / DEVICE_ID,
    )


def publish(ota: Ota, version: str, counter: int) -> None:
    release = ota.signer.firmware(
        bundle(version.encode() * 1000), version=version, release_counter=counter
    )
    assert ota.publish(release, path=PUBLISH).status_code == 201


def test_nothing_is_offered(device: UpdatingDevice) -> None:
    assert device.update() == "idle"
    assert device.update("irrigation") == "idle"


def test_rule_1_what_it_runs_outlasts_a_restart(
    ota: Ota, device: UpdatingDevice, tmp_path: Path
) -> None:
    publish(ota, "v1.1.0", 1)
    assert device.update() == "success"
    restarted = again(ota, tmp_path)
    assert restarted.runs(None) == "v1.1.0"
    assert restarted.kept.newest_counters == {"firmware": 1}
    assert restarted.update() == "idle"
    publish(ota, "v1.2.0", 2)
    assert restarted.update() == "success"
    assert restarted.runs(None) == "v1.2.0"


def test_a_model_is_a_slot_of_its_own(ota: Ota, device: UpdatingDevice) -> None:
    release = ota.signer.model(version="m-20261128-abcdef0")
    assert ota.publish(release).status_code == 201
    assert device.update("irrigation") == "success"
    assert (device.runs(None), device.runs("irrigation")) == ("v1.0.0", "m-20261128-abcdef0")
