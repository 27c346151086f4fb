"""What rauc-hawkbit-updater and Zephyr's client send and read, by their sources, step by step.

RAUC: src/hawkbit-client.c. Zephyr: subsys/mgmt/hawkbit/hawkbit.c, with the sizes of its buffers.
"""

import configparser
import hashlib
import re
from pathlib import Path
from typing import Any

from tests.ota_api.conftest import Ota
from tests.ota_api.ddi import DdiDevice, publish

BUNDLE = b"hsqs" + b"a squashfs as far as its magic\n" * 5_000
IMAGE = b"\x3d\xb8\xf3\x96" + b"an image for MCUboot as far as its magic\n" * 5_000
JSON = "application/json;charset=UTF-8"
DDI_MD = Path(__file__).parents[2] / "docs/reference/ddi.md"
TIME = "20261128T120000"


class Rauc(DdiDevice):
    """rauc-hawkbit-updater as documented: any status but 200 is an error to it."""

    def __init__(self, ota: Ota) -> None:
        [text] = re.findall(r"```ini\n(.*?)```", DDI_MD.read_text(), re.DOTALL)
        configuration = configparser.ConfigParser()
        configuration.read_string(text)
        client = configuration["client"]
        super().__init__(ota, client["target_name"])
        self.path = f"/{client['tenant_id']}/controller/v1/{client['target_name']}"
        self.attributes = dict(configuration["device"])

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        options = {"json": body, "headers": {"Accept": JSON, "Content-Type": JSON}}
        answer = self.send(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def report(self, action_id: str, detail: str, finished: str, execution: str, of: str) -> None:
        status = {"result": {"finished": finished}, "execution": execution, "details": [detail]}
        body = {"id": action_id, "time": TIME, "status": status}
        self.request("POST", f"/{of}/{action_id}/feedback", body)

    def progress(self, action_id: str, detail: str) -> None:
        self.report(action_id, detail, "none", "proceeding", "deploymentBase")

    def identify(self, **attributes: str) -> None:
        status = {"result": {"finished": "success"}, "execution": "closed"}
        data = self.attributes | attributes
        self.request("PUT", "/configData", {"time": TIME, "status": status, "data": data})

    def begin(self) -> str:
        """Up to the installation: the action's id."""
        base = self.request("GET", "")
        assert re.fullmatch(r"\d\d:\d\d:\d\d", base["config"]["polling"]["sleep"])
        action = self.request("GET", base["_links"]["deploymentBase"]["href"])
        chunk = action["deployment"]["chunks"][0]
        artifact = chunk["artifacts"][0]
        assert isinstance(action["id"], str)
        assert isinstance(artifact["size"], int)
        assert (chunk["name"], chunk["version"]) == ("gateway", "v1.2.0")
        file = self.send(
            "GET",
            artifact["_links"]["download"]["href"],
            headers={"Accept": "application/octet-stream"},
        )
        assert file.status_code == 200
        assert len(file.content) == artifact["size"]
        assert hashlib.sha1(file.content).hexdigest() == artifact["hashes"]["sha1"]  # noqa: S324
        self.progress(action["id"], "Download complete. 1.00 MB/s")
        self.progress(action["id"], "File checksum OK.")
        return str(action["id"])


def test_rauc_installs_reboots_and_tells_its_version(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = Rauc(ota)
    assert "configData" in device.links()
    device.identify(firmware_version="v1.1.0")
    action_id = device.begin()
    device.progress(action_id, "Installing: 20% Determining slot states")
    assert device.state() == "installing"
    # It closes the action before it restarts the machine, and must not be told to install again.
    device.report(
        action_id, "Software bundle installed successfully.", "success", "closed", "deploymentBase"
    )
    assert set(device.links()) == {"configData", "installedBase"}
    assert (device.state(), device.runs()) == ("rebooting", "v1.1.0")
    device.identify()
    assert (device.state(), device.runs()) == ("success", "v1.2.0")
    installed = device.request("GET", device.links()["installedBase"])
    assert installed["id"] == action_id


def test_rauc_cannot_install(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = Rauc(ota)
    action_id = device.begin()
    said = "Failed to install software bundle."
    device.report(action_id, said, "failure", "closed", "deploymentBase")
    assert (device.state(), device.state("stage"), device.state("reason")) == (
        "failure",
        "install",
        said,
    )
    assert "deploymentBase" not in device.links()


def test_rauc_stops_where_it_has_not_begun_to_install(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = Rauc(ota)
    device.begin()
    device.abort_rollout()
    cancel = device.request("GET", device.links()["cancelAction"])
    stop_id = cancel["cancelAction"]["stopId"]
    device.report(stop_id, "Action canceled.", "success", "closed", "cancelAction")
    assert device.cancel_answer() == "cancel-confirmed"
    assert set(device.links()) == {"configData"}


def test_rauc_does_not_stop_an_installation(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = Rauc(ota)
    action_id = device.begin()
    device.abort_rollout()
    said = "Cancelation impossible, installation started already."
    device.report(action_id, said, "success", "rejected", "cancelAction")
    assert device.cancel_answer() == "cancel-rejected"
    assert "cancelAction" not in device.links()
    device.progress(action_id, "Installing: 99% Copying image")
    assert device.state() == "aborted"
    device.report(
        action_id, "Software bundle installed successfully.", "success", "closed", "deploymentBase"
    )
    assert device.state() == "rebooting"


class Zephyr(DdiDevice):
    """Zephyr's client: an id of its own make, small buffers, links cut and put to its own path."""

    def __init__(self, ota: Ota) -> None:
        super().__init__(ota, "frdm-k64f-1a2b3c")
        self.path = "/DEFAULT/controller/v1/frdm_k64f-1A2B3C"  # the board's name and a number
        self.action_id = 0
        self.installed = 0

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> None:
        answer = self.send(method, path, json=body, headers={"Content-Type": JSON})
        assert answer.status_code == 200, answer.text

    def poll(self) -> dict[str, str]:
        """The base resource, whose length must be told."""
        answer = self.send("GET")
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert len(answer.json()["config"]["polling"]["sleep"]) == 8
        return {name: link["href"] for name, link in answer.json()["_links"].items()}

    def identify(self) -> None:
        status = {"execution": "closed", "result": {"finished": "success"}}
        data = {"VIN": "1a2b3c", "hwRevision": "3"}
        body = {"mode": "merge", "data": data, "id": "", "time": "", "status": status}
        self.post("/configData", body, "PUT")

    def probe(self) -> bytes | None:
        """One round: the image that was downloaded, if one was."""
        links = self.poll()
        if "cancelAction" in links:
            part = links["cancelAction"][links["cancelAction"].index("cancelAction/") :]
            assert len(part) < 50
            self.close(f"/{part}/feedback", time="")
            return None
        if "configData" in links:
            self.identify()
        if "deploymentBase" not in links:
            return None
        part = links["deploymentBase"][links["deploymentBase"].index("deploymentBase/") :]
        assert len(part) < 50
        return self.install(self.send("GET", f"/{part}").json())

    def install(self, action: dict[str, Any]) -> bytes | None:
        self.action_id = int(action["id"])
        assert 0 < self.action_id < 2**31
        if self.action_id == self.installed:
            self.close(f"/deploymentBase/{self.action_id}/feedback")
            return None
        [chunk] = action["deployment"]["chunks"]
        [artifact] = chunk["artifacts"]
        assert chunk["part"] == "bApp"
        href = artifact["_links"]["download-http"]["href"]
        part = href[href.index("/DEFAULT/controller/v1") :]
        assert len(part) < 200
        image = self._ota.http.get(part, headers=self.headers)
        assert image.status_code == 200
        assert int(image.headers["content-length"]) == artifact["size"]
        assert hashlib.sha256(image.content).hexdigest() == artifact["hashes"]["sha256"]
        self.installed = self.action_id
        return image.content

    def close(self, path: str, **more: str) -> None:
        status = {"execution": "closed", "result": {"finished": "success"}}
        self.post(path, {"id": str(self.action_id), **more, "status": status})


def test_zephyr_installs_and_closes_after_its_reboot(ota: Ota) -> None:
    publish(ota, IMAGE)
    device = Zephyr(ota)
    assert device.probe() == IMAGE
    assert device.state() == "downloading"
    assert device.probe() is None
    assert device.state() == "rebooting"
    assert device.state("confirmed_at") is not None
    assert device.probe() is None
    assert device.history() == ["pending", "downloading", "rebooting"]


def test_zephyr_confirms_a_cancellation(ota: Ota) -> None:
    publish(ota, IMAGE)
    device = Zephyr(ota)
    device.probe()
    device.abort_rollout()
    assert device.probe() is None
    assert device.cancel_answer() == "cancel-confirmed"
    assert "cancelAction" not in device.poll()
