"""Who calls, and a good request for each route of the OpenAPI document.

Each request is the first of its kind: what it names is new, and nobody has used it up.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from tests.ota_api.conftest import DEVICE_MODEL, HOOK_SECRET, Ota
from tests.ota_api.releases import bundle
from zenthos_core import passwords, tokens
from zenthos_core.tokens import Role

OTHER_DEVICE = "other-device-001"
PASSWORD = "correct horse battery"
SECRET = "factory-secret-of-a-device"
SERVICES = {
    "service with read": (Role.OPERATOR, ["read"]),
    "service with publish": (Role.OPERATOR, ["publish"]),
    "service with rollback": (Role.OPERATOR, ["rollback"]),
    "service without scopes": (Role.OPERATOR, []),
    "viewing service with publish": (Role.VIEWER, ["publish"]),
    "admin service": (Role.ADMIN, ["read", "publish", "rollback"]),
}
USERS = {
    "viewer": (Role.VIEWER, ["read"]),
    "operator": (Role.OPERATOR, ["read", "rollback"]),
    "admin": (Role.ADMIN, ["read", "publish", "rollback"]),
}
QUERIES = {
    "/analytics/farm/{farm_id}/summary": "?start_date=2026-11-01&end_date=2026-11-30",
    "/lineage/impact": "?asset=gold/ml_features&partition=2026-11-23",
}
"""Of routes that take no request without."""
CALLERS = ("anonymous", "device", "other device", *USERS, *SERVICES)
MUTATING = {"POST", "PUT", "PATCH", "DELETE"}


class Operation(NamedTuple):
    """A route of the OpenAPI document."""

    method: str
    path: str


def operations(ota: Ota) -> list[Operation]:
    """All that the document names."""
    paths = ota.http.get("/openapi.json").json()["paths"]
    return [Operation(verb.upper(), path) for path, item in paths.items() for verb in item]


class Requests:
    """Makes requests to a server."""

    def __init__(self, ota: Ota) -> None:
        self._ota = ota
        self._numbers = iter(range(1, 1_000_000))
        self._device = ""
        self._alerts: dict[tuple[str, str], str] = {}
        self._releases: dict[tuple[str, str], str] = {}
        self._rollouts: dict[tuple[str, str], tuple[str, str]] = {}
        ota.register(OTHER_DEVICE)
        ota.publish(ota.signer.model())
        ota.publish(ota.signer.firmware(), path="/firmware/publish")
        hashed = passwords.hash_password(PASSWORD)
        for name, (role, _) in USERS.items():
            self._execute(
                "INSERT INTO users (name, role, password_hash) VALUES (%s, %s, %s)",
                name, role, hashed,
            )  # fmt: skip

    def new_device(self) -> str:
        """Registered, with a factory secret that has not been used."""
        device_id = f"device-{next(self._numbers):06}"
        assert self._ota.register(device_id, factory_secret=SECRET).status_code == 201
        self._device = device_id
        return device_id

    def rollout(self, operation: Operation) -> tuple[str, str]:
        """A rollout that the operation is for, and a release to roll back to."""
        key = (operation.path, self._device)
        if key not in self._rollouts:
            release, newer = self._new_release(), self._new_release()
            states = {"start": "created", "resume": "paused"}
            state = states.get(operation.path.rpartition("/")[2], "running")
            [(rollout,)] = self._execute(
                "INSERT INTO rollouts (release_id, device_model, phases, success_threshold,"
                " error_threshold, min_devices, timeout_s, state, created_by, started_at,"
                " phase_started_at) VALUES (%s, %s, '{100}', 0.9, 0.1, 1, 3600, %s, 'a test',"
                " now(), now()) RETURNING id",
                release, DEVICE_MODEL, state,
            )  # fmt: skip
            self.new_deployment(rollout, "success")
            self._rollouts[key] = (str(rollout), newer)
        return self._rollouts[key]

    def release(self, operation: Operation) -> str:
        """A release that the operation is for."""
        key = (operation.path, self._device)
        if key not in self._releases:
            self._releases[key] = self._new_release()
        return self._releases[key]

    def new_deployment(self, rollout: object, state: str) -> int:
        """Of the device that was made last."""
        [(deployment,)] = self._execute(
            "INSERT INTO deployments (rollout_id, device_id, phase, state, offered_at, changed_at)"
            " VALUES (%s, %s, 1, %s, now(), now()) RETURNING id",
            rollout, self._device, state,
        )  # fmt: skip
        return int(deployment)

    def alert(self, operation: Operation) -> str:
        """An open alert that the operation is for."""
        key = (operation.path, self._device)
        if key not in self._alerts:
            [(alert,)] = self._execute(
                "INSERT INTO alerts (alert_type, severity, subject, message)"
                " VALUES ('a test', 'warning', %s, 'look') RETURNING id",
                f"alert {next(self._numbers)}",
            )
            self._alerts[key] = str(alert)
        return self._alerts[key]

    def _farm(self) -> str:
        [(farm,)] = self._execute("SELECT farm_id FROM devices WHERE id = %s", self._device)
        return str(farm)

    def _new_prediction(self) -> str:
        [(message,)] = self._execute(
            "INSERT INTO inference_results (time, message_id, device_id, model_version, result,"
            " confidence, received_at) VALUES (now(), gen_random_uuid(), %s, 'm', '{}', 0.5, now())"
            " RETURNING message_id",
            self._device,
        )
        return str(message)

    def _new_release(self) -> str:
        number = next(self._numbers)
        release = self._ota.signer.firmware(
            bundle(f"release {number}".encode()),
            version=f"v2.0.{number}",
            release_counter=self._next_counter("firmware-bundle"),
        )
        answer = self._ota.publish({**release, "rollout_percentage": 0}, path="/firmware/publish")
        return str(answer.json()["id"])

    def headers(self, caller: str, device_id: str) -> dict[str, str]:
        """A good token of the caller; each user's is of a session of its own."""
        if caller == "anonymous":
            return {}
        options: dict[str, Any] = {"subject": caller}
        if caller in USERS:
            options["role"], options["scopes"] = USERS[caller]
            options["session"] = self._new_session(caller)
        elif caller in SERVICES:
            options["role"], options["scopes"] = SERVICES[caller]
        else:
            own = device_id if caller == "device" else OTHER_DEVICE
            options = {"subject": own, "role": Role.DEVICE, "scopes": ["read"]}
        private = self._ota.settings.token_private_key_file.read_bytes()
        token = tokens.issue(private, **options, now=time.time(), valid_s=600)
        return {"Authorization": f"Bearer {token}"}

    def path(self, operation: Operation, device_id: str) -> str:
        """With its parameters filled in."""
        self._device = device_id
        path = operation.path + QUERIES.get(operation.path, "")
        return path.format(
            device_id=device_id,
            device_model=DEVICE_MODEL,
            name="irrigation",
            version="latest",
            kind="model",
            table="ops/devices",
            farm_id=self._farm() if "{farm_id}" in path else "",
            alert_id=self.alert(operation) if "{alert_id}" in path else "",
            message_id=self._new_prediction() if "{message_id}" in path else "",
            release_id=self.release(operation) if "{release_id}" in path else "",
            rollout_id=self.rollout(operation)[0] if "{rollout_id}" in operation.path else "",
            **self._ddi_parameters(operation, device_id),
        )

    def _ddi_parameters(self, operation: Operation, device_id: str) -> dict[str, object]:
        """Of hawkBit's device API: an action in the state that the route is for."""
        if "/controller/v1/" not in operation.path:
            return {}
        states = {"cancelAction": "aborted", "installedBase": "success"}
        state = next((states[word] for word in states if word in operation.path), "pending")
        [(action, name, version)] = self._execute(
            "UPDATE deployments d SET state = %s FROM rollouts o JOIN releases r"
            " ON r.id = o.release_id WHERE o.id = d.rollout_id AND o.id = %s AND d.device_id = %s"
            " RETURNING d.id, r.name, r.version",
            state, self.rollout(operation)[0], device_id,
        )  # fmt: skip
        return {
            "tenant": "default",
            "controller_id": device_id,
            "action_id": action,
            "module_id": action,
            "filename": f"{name}-{version}.zip",
        }

    def body(self, operation: Operation) -> dict[str, Any]:
        """What httpx sends; nothing for a route that takes no body."""
        number = next(self._numbers)
        if "{alert_id}" in operation.path:
            self.alert(operation)
        if "{release_id}" in operation.path:
            self.release(operation)
        device = {"device_id": f"new-{number}", "device_model": DEVICE_MODEL, "device_type": "soil"}
        binary = f"binary {number}".encode()
        bodies: dict[str, Any] = {
            "/auth/login": lambda: {"username": "viewer", "password": PASSWORD},
            "/auth/refresh": lambda: {"refresh_token": self._log_in()},
            "/farms": lambda: {"name": f"Farm {number}"},
            "/devices/register": lambda: {**device, "farm_name": "North"},
            "/devices/{device_id}": lambda: {"tags": [f"tag-{number}"]},
            "/devices/{device_id}/claim": lambda: {"factory_secret": SECRET},
            "/releases/{release_id}/withdraw": lambda: {"reason": "it drains batteries"},
            "/models/publish": lambda: self._ota.signer.model(
                binary, release_counter=self._next_counter("model")
            ),
            "/firmware/publish": lambda: self._ota.signer.firmware(
                bundle(binary),
                version=f"v1.0.{number}",
                release_counter=self._next_counter("firmware-bundle") + 200,  # of `_new_release`
            ),
        }
        if "{controller_id}" in operation.path:
            return self._ddi_body(operation)
        if "rollout" in operation.path or operation.path.endswith("/update-status"):
            return self._rollout_body(operation)
        if operation.path == "/hooks/github-release":
            return _ping()
        if operation.path == "/devices/bulk":
            header = "device_id,device_model,device_type,farm_name"
            return {"content": f"{header}\nnew-{number},{DEVICE_MODEL},soil,North\n".encode()}
        if operation.method in MUTATING and operation.path in bodies:
            return {"json": bodies[operation.path]()}
        return {}

    def _next_counter(self, kind: str) -> int:
        answer = self._ota.send("GET", f"/release-counters/{DEVICE_MODEL}/{kind}")
        return int(answer.json()["next"])

    def _ddi_body(self, operation: Operation) -> dict[str, Any]:
        self.rollout(operation)
        if operation.path.endswith("/configData"):
            return {"json": {"data": {"board": "gateway"}}}
        status = {"execution": "proceeding", "result": {"finished": "none"}}
        return {"json": {"status": status}} if operation.method in MUTATING else {}

    def _rollout_body(self, operation: Operation) -> dict[str, Any]:
        if operation.method == "GET":
            return {}
        if operation.path == "/rollouts":
            return {"json": {"release_id": self._new_release()}}
        rollout, newer = self.rollout(operation)
        if operation.path.endswith("/rollback"):
            return {"json": {"release_id": newer}}
        if operation.path.endswith("/update-status"):
            self._execute("DELETE FROM deployments WHERE rollout_id = %s", rollout)
            deployment = self.new_deployment(rollout, "pending")
            told = {"deployment_id": deployment, "report_counter": 1, "state": "downloading"}
            return {"json": told}
        takes_body = operation.path.endswith(("/pause", "/abort", "/evaluate"))
        return {"json": {}} if takes_body else {}

    def _log_in(self) -> str:
        credentials = {"username": "viewer", "password": PASSWORD}
        answer = self._ota.http.post("/auth/login", json=credentials)
        return str(answer.json()["refresh_token"])

    def _new_session(self, user: str) -> str:
        rows = self._execute(
            "INSERT INTO sessions (user_id, started_at, expires_at)"
            " SELECT id, now(), now() + INTERVAL '1 day' FROM users WHERE name = %s RETURNING id",
            user,
        )
        return str(next(rows)[0])

    def _execute(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with psycopg.connect(self._ota.settings.database_url.get_secret_value()) as connection:
            cursor = connection.execute(query.encode(), values)
            return iter(cursor.fetchall() if cursor.description else [])


def _ping() -> dict[str, Any]:
    """What GitHub sends first, with the HMAC that stands for a token."""
    body = b'{"zen": "Keep it logically awesome."}'
    digest = hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
    signature = {"X-GitHub-Event": "ping", "X-Hub-Signature-256": f"sha256={digest}"}
    return {"content": body, "headers": signature}


def random_secret() -> str:
    """As a factory makes them."""
    return secrets.token_urlsafe(24)
