"""Devices that speak DDI, and what is offered to them."""

import time
from collections.abc import Callable
from itertools import groupby
from typing import Any, Protocol

import httpx

from tests.ota_api.conftest import Ota
from tests.ota_api.ddi_shapes import check_answer

MODEL = "linux-gateway"
GATEWAY = "gateway-1"
TENANT = "default"


class Logging(Protocol):
    """A program that writes a log."""

    @property
    def log(self) -> str:
        """So far."""


class DdiDevice:
    """A registered device, and its way to the server."""

    def __init__(self, ota: Ota, device_id: str = GATEWAY) -> None:
        registered = ota.register(device_id, device_model=MODEL, device_type="gateway")
        self.token = registered.json()["jwt_token"]
        self.device_id = device_id
        self.path = f"/{TENANT}/controller/v1/{device_id}"
        self._ota = ota
        self.headers = {"Authorization": f"TargetToken {self.token}"}

    def send(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        """A request below its own path, or to the whole URL of a link."""
        url = path if path.startswith("http") else f"{self.path}{path}"
        headers = self.headers | options.pop("headers", {})
        answer = self._ota.http.request(method, url, headers=headers, **options)
        check_answer(answer)
        return answer

    def links(self) -> dict[str, str]:
        """Of its base poll, by name."""
        answer = self.send("GET")
        assert answer.status_code == 200, answer.text
        return {name: link["href"] for name, link in answer.json()["_links"].items()}

    def action(self) -> dict[str, Any]:
        """What it is offered."""
        return dict(self.send("GET", self.links()["deploymentBase"]).json())

    def feedback(
        self,
        action_id: str,
        execution: str,
        finished: str = "none",
        *details: str,
        of: str = "deploymentBase",
    ) -> httpx.Response:
        """As hawkBit's clients send it."""
        status = {"execution": execution, "result": {"finished": finished}, "details": details}
        body = {"id": action_id, "time": "20261128T120000", "status": status}
        return self.send("POST", f"/{of}/{action_id}/feedback", json=body)

    def configure(self, mode: str | None = None, **attributes: str) -> httpx.Response:
        """Its configData."""
        body = {"data": attributes} | ({"mode": mode} if mode else {})
        return self.send("PUT", "/configData", json=body)

    def state(self, what: str = "state") -> Any:
        """Of its newest deployment."""
        rows = self._ota.rows(
            f"SELECT {what} FROM deployments WHERE device_id = '{self.device_id}'"
            " ORDER BY id DESC LIMIT 1"
        )
        return rows[0][0] if rows else None

    def history(self) -> list[str]:
        """States of its newest deployment as they followed each other."""
        rows = self._ota.rows(
            "SELECT e.state FROM deployment_events e JOIN deployments d ON d.id = e.deployment_id"
            f" WHERE d.device_id = '{self.device_id}' ORDER BY d.id DESC, e.id"
        )
        return [state for state, _ in groupby(state for (state,) in rows)]

    def cancel_answer(self) -> str | None:
        """What it has said to the cancellation of an action."""
        rows = self._ota.rows(
            "SELECT e.stage FROM deployment_events e JOIN deployments d ON d.id = e.deployment_id"
            f" WHERE d.device_id = '{self.device_id}' AND e.stage LIKE 'cancel-%'"
        )
        return rows[0][0] if rows else None

    def runs(self) -> str | None:
        """The version that is known of it."""
        query = f"SELECT firmware_version FROM devices WHERE id = '{self.device_id}'"
        [(version,)] = self._ota.rows(query)
        return str(version) if version else None

    def abort_rollout(self) -> None:
        """As an operator, the one of its newest deployment."""
        rollout = self.state("rollout_id")
        answer = self._ota.send("POST", f"/rollouts/{rollout}/abort", json={})
        assert answer.status_code == 200, answer.text


def publish(ota: Ota, binary: bytes, version: str = "v1.2.0", **changes: Any) -> dict[str, Any]:
    """A bundle for gateways that is offered to all of them."""
    counter = int(version.replace("v", "").replace(".", ""))
    fields = {"device_models": [MODEL], "name": "gateway", "version": version}
    release = ota.signer.firmware(binary, release_counter=counter, **fields)
    body = {**release, "rollout_percentage": 0, **changes}
    answer = ota.publish(body, path="/firmware/publish")
    assert answer.status_code == 201, answer.text
    rollout = {"release_id": answer.json()["id"], "phases": [100]}
    begun = ota.send("POST", "/rollouts", json=rollout)
    assert begun.status_code == 201, begun.text
    return dict(answer.json())


def wait_for(condition: Callable[[], bool], program: Logging, timeout_s: float = 60) -> None:
    """Until it holds; else the test fails with what the program has written."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, program.log[-4000:]
        time.sleep(0.1)
