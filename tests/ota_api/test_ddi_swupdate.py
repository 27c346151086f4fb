"""Debian's SWUpdate 2022.12 in hawkBit's mode against the real server."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.ota_api.conftest import Ota, on_s3, running_ota
from tests.ota_api.ddi import DdiDevice, publish, wait_for
from tests.servers import MotoServer
from tests.swupdate import Swupdate
from zenthos_core.blobs.s3 import Place
from zenthos_core.settings import Settings

PAYLOAD = b"the software of a gateway\n" * 400
DDI_MD = Path(__file__).parents[2] / "docs/reference/ddi.md"


@pytest.fixture
def fast_ota(ota_settings: Settings) -> Iterator[Ota]:
    """A server that devices ask every second."""
    with running_ota(ota_settings.model_copy(update={"ddi_poll_interval_s": 1})) as running:
        yield running


@pytest.fixture
def gateway(swupdate_root: Path) -> Iterator[Swupdate]:
    gateway = Swupdate(swupdate_root)
    yield gateway
    gateway.remove()


def documented(language: str) -> list[str]:
    """Blocks of the documentation in a language."""
    return re.findall(rf"```{language}\n(.*?)```", DDI_MD.read_text(), re.DOTALL)


def configured(ota: Ota, gateway: Swupdate, version: str = "v1.1.0") -> str:
    """The configuration of the documentation, of this machine when it runs that version."""
    [text] = documented("libconfig")
    changes = {
        "https://ota.example.org": ota.settings.ota_url,
        "/etc/swupdate/vendor.pem": str(gateway.vendor.certificate),
        "v1.2.0": version,
    }
    for told, own in changes.items():
        assert told in text
        text = text.replace(told, own)
    return text


def test_an_update_from_the_offer_to_its_proof(fast_ota: Ota, gateway: Swupdate) -> None:
    device = DdiDevice(fast_ota)
    publish(fast_ota, gateway.image("v1.2.0", PAYLOAD))
    with gateway.running(configured(fast_ota, gateway), f"-k {device.token}"):
        wait_for(gateway.target.exists, gateway)
        wait_for(lambda: device.state() == "installing", gateway)
        wait_for(lambda: "pending testing" in gateway.log, gateway)
    assert gateway.target.read_bytes() == PAYLOAD
    assert device.runs() == "v1.1.0"

    with gateway.running(configured(fast_ota, gateway, "v1.2.0"), f"-k {device.token} -c 2"):
        wait_for(lambda: device.state() == "success", gateway)
        wait_for(lambda: set(device.links()) == {"installedBase"}, gateway)
    assert device.runs() == "v1.2.0"
    assert device.history() == ["pending", "downloading", "installing", "rebooting", "success"]


def test_a_broken_image_is_a_failure_with_its_reason(fast_ota: Ota, gateway: Swupdate) -> None:
    device = DdiDevice(fast_ota)
    publish(fast_ota, gateway.image("v1.2.0", PAYLOAD, listed=b"something else"))
    with gateway.running(configured(fast_ota, gateway), f"-k {device.token}"):
        wait_for(lambda: device.state() == "failure", gateway)
        wait_for(lambda: "deploymentBase" not in device.links(), gateway)
    assert device.state("stage") in {"download", "install"}
    assert "HASH mismatch" in device.state("reason")
    assert not gateway.target.exists()


def test_an_aborted_rollout_stops_the_download(fast_ota: Ota, gateway: Swupdate) -> None:
    device = DdiDevice(fast_ota)
    publish(fast_ota, gateway.image("v1.2.0", PAYLOAD * 200))
    with gateway.running(configured(fast_ota, gateway), f"-k {device.token} -n 100k"):
        wait_for(lambda: "filename payload" in gateway.log, gateway)
        assert device.state() in {"downloading", "installing"}
        device.abort_rollout()
        wait_for(lambda: device.cancel_answer() == "cancel-confirmed", gateway)
        wait_for(lambda: "cancelAction" not in device.links(), gateway)
    assert device.state() == "aborted"
    assert not gateway.target.exists()


def test_the_download_is_followed_to_s3(
    ota_settings: Settings, s3: MotoServer, s3_place: Place, gateway: Swupdate
) -> None:
    settings = on_s3(ota_settings, s3, s3_place)
    with running_ota(settings.model_copy(update={"ddi_poll_interval_s": 1})) as ota:
        device = DdiDevice(ota)
        publish(ota, gateway.image("v1.2.0", PAYLOAD))
        links = device.action()["deployment"]["chunks"][0]["artifacts"][0]["_links"]
        assert device.send("GET", links["download"]["href"]).status_code == 302
        assert device.send("GET", links["download-http"]["href"]).status_code == 200
        with gateway.running(configured(ota, gateway), f"-k {device.token}"):
            wait_for(lambda: "pending testing" in gateway.log, gateway)
    assert gateway.target.read_bytes() == PAYLOAD


def test_a_token_renews_itself_as_documented(ota: Ota, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        unavailable("curl is missing")
    device = DdiDevice(ota)
    (tmp_path / "token").write_text(device.token)
    script = documented("sh")[-1].replace("/var/lib/zenthos", str(tmp_path))
    script = script.replace("https://ota.example.org", ota.settings.ota_url)
    subprocess.run(["sh", "-eu", "-c", script], check=True, env={"PATH": os.environ["PATH"]})
    renewed = (tmp_path / "token").read_text().strip()
    assert renewed != device.token
    device.headers = {"Authorization": f"TargetToken {renewed}"}
    assert device.send("GET").status_code == 200
