"""Rules of zenthos_cli/updating.py, by number, against the real server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota, make_ota_settings, running_ota
from tests.ota_api.releases import bundle
from zenthos_cli.updating import Faults, ReportError, UpdatingDevice
from zenthos_core.signing import read_key

PUBLISH = "/firmware/publish"
FACTORY = b"as it left the factory"


@pytest.fixture
def ota(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    """A server with one device."""
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        yield running


@pytest.fixture
def device(ota: Ota, tmp_path: Path) -> UpdatingDevice:
    """A registered device that left the factory with v1.0.0."""
    made = again(ota, tmp_path)
    made.flash("v1.0.0", FACTORY)
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


def history(ota: Ota) -> list[dict[str, Any]]:
    """The device's deployments, the newest first, as users see them."""
    items: list[dict[str, Any]] = ota.send("GET", f"/devices/{DEVICE_ID}/deployments").json()[
        "items"
    ]
    return items


def steps(ota: Ota) -> list[tuple[str, str | None, str | None]]:
    """What became of the newest deployment."""
    return [(step["state"], step["stage"], step["reason"]) for step in history(ota)[0]["events"]]


def test_rule_2_every_step_is_reported_once(ota: Ota, device: UpdatingDevice) -> None:
    publish(ota, "v1.1.0", 1)
    assert device.update() == "success"
    assert [state for state, _, _ in steps(ota)] == [
        "pending",
        "downloading",
        "installing",
        "rebooting",
        "rebooting",
    ]
    assert history(ota)[0]["confirmed_at"] is not None
    assert device.update() == "idle"
    assert len(steps(ota)) == 5


@pytest.mark.parametrize("stage", ["download", "install", "reboot"])
def test_rule_2_a_failure_names_its_stage(ota: Ota, device: UpdatingDevice, stage: Any) -> None:
    publish(ota, "v1.1.0", 1)
    device.faults = Faults(fails_at=stage)
    assert device.update() == "failure"
    state, at, reason = steps(ota)[-1]
    assert (state, at) == ("failure", stage)
    assert reason
    assert device.runs(None) == "v1.0.0"
    device.faults = Faults()
    assert device.update() == "idle", "what failed is not offered again"


def test_rule_1_a_report_counter_is_never_used_twice(
    ota: Ota, device: UpdatingDevice, tmp_path: Path
) -> None:
    publish(ota, "v1.1.0", 1)
    device.faults = Faults(silent_from="installing")
    assert device.update() == "silent"
    device.kept.report_counter = 0  # a device that forgets
    with pytest.raises(ReportError, match="409"):
        device.update()
    restarted = again(ota, tmp_path)
    assert restarted.update() == "success"


def test_rule_3_a_version_that_it_runs_is_already_installed(
    ota: Ota, device: UpdatingDevice
) -> None:
    binary = bundle(b"v1.1.0" * 1000)
    device.flash("v1.1.0", binary)
    publish(ota, "v1.1.0", 1)
    assert device.update() == "already-installed"
    assert history(ota)[0]["state"] == "already-installed"
    assert device.kept.newest_counters == {"firmware": 1}
    assert device.update() == "idle"


def test_rule_3_another_binary_of_that_version_is_told(ota: Ota, device: UpdatingDevice) -> None:
    device.flash("v1.1.0", b"something else")
    publish(ota, "v1.1.0", 1)
    device.update()
    assert steps(ota)[-1] == ("failure", "confirm", "hash_mismatch")


def test_rule_4_a_wrong_hash_is_no_success(ota: Ota, device: UpdatingDevice) -> None:
    publish(ota, "v1.1.0", 1)
    device.faults = Faults(wrong_hash=True)
    device.update()
    assert steps(ota)[-1] == ("failure", "confirm", "hash_mismatch")


def test_a_model_is_a_slot_of_its_own(ota: Ota, device: UpdatingDevice) -> None:
    release = ota.signer.model(version="m-20261128-abcdef0")
    assert ota.publish(release).status_code == 201
    assert device.update("irrigation") == "success"
    assert (device.runs(None), device.runs("irrigation")) == ("v1.0.0", "m-20261128-abcdef0")
