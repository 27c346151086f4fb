"""Every route with every caller: the table of docs/reference/http.md, and nothing beside it."""

import re
from pathlib import Path

import pytest

from tests.ota_api.callers import CALLERS, MUTATING, Operation, Requests, operations
from tests.ota_api.conftest import Ota

HTTP_MD = Path(__file__).parents[2] / "docs/reference/http.md"

WHO = {
    "anyone": set(CALLERS),
    "users": {"viewer", "operator", "admin", "service with read", "admin service"},
    "operator, admin": {"operator", "admin", "service with read", "admin service"},
    "admin": {"admin", "admin service"},
    "scope publish": {"admin", "service with publish", "admin service"},
    "scope rollback": {"operator", "admin", "service with rollback", "admin service"},
    "the device": {"device"},
    "a session": {"viewer", "operator", "admin"},
}
WHO["users, devices"] = WHO["users"] | {"device", "other device"}
WHO["users, the device"] = WHO["users"] | {"device"}

DDI = "/{tenant}/controller/v1/{controller_id}"
MATRIX = {
    "GET /health": "anyone",
    "GET /health/ready": "anyone",
    "GET /metrics": "anyone",
    "GET /.well-known/jwks.json": "anyone",
    "GET /keys.json": "anyone",
    "POST /auth/login": "anyone",
    "POST /auth/refresh": "anyone",
    "POST /auth/logout": "a session",
    "POST /farms": "admin",
    "GET /farms": "users",
    "POST /devices/register": "admin",
    "POST /devices/bulk": "admin",
    "GET /devices": "users",
    "GET /devices/{device_id}/status": "users, the device",
    "GET /device/{device_id}/status": "users, the device",
    "PATCH /devices/{device_id}": "operator, admin",
    "POST /devices/{device_id}/token": "the device",
    "POST /devices/{device_id}/claim": "anyone",
    "POST /devices/{device_id}/revoke": "operator, admin",
    "POST /devices/{device_id}/decommission": "admin",
    "POST /firmware/publish": "scope publish",
    "POST /models/publish": "scope publish",
    "GET /releases": "users",
    "GET /releases/{release_id}": "users",
    "POST /releases/{release_id}/withdraw": "scope rollback",
    "GET /firmware/{device_model}/{version}": "users, devices",
    "GET /models/{device_model}/{name}/{version}": "users, devices",
    "GET /release-counters/{device_model}/{kind}": "users",
    "POST /rollouts": "scope rollback",
    "GET /rollouts": "users",
    "GET /rollouts/{rollout_id}": "users",
    "GET /rollouts/{rollout_id}/deployments": "users",
    "GET /rollouts/{rollout_id}/events": "users",
    "POST /rollouts/{rollout_id}/start": "scope rollback",
    "POST /rollouts/{rollout_id}/pause": "scope rollback",
    "POST /rollouts/{rollout_id}/resume": "scope rollback",
    "POST /rollouts/{rollout_id}/abort": "scope rollback",
    "POST /rollouts/{rollout_id}/rollback": "scope rollback",
    "POST /rollouts/{rollout_id}/evaluate": "scope publish",
    "POST /devices/{device_id}/update-status": "the device",
    "GET /devices/{device_id}/deployments": "users, the device",
    "GET /devices/{device_id}/history": "users, the device",
    "GET /analytics/farm/{farm_id}/summary": "users",
    "GET /alerts": "users",
    "GET /alerts/{alert_id}": "users",
    "POST /alerts/{alert_id}/acknowledge": "operator, admin",
    "POST /alerts/{alert_id}/resolve": "operator, admin",
    "GET /lineage/impact": "operator, admin",
    "GET /lineage/prediction/{message_id}": "operator, admin",
    "GET /export": "users",
    "GET /export/{table}": "users",
    "POST /hooks/github-release": "anyone",
    "GET /hooks/deliveries": "users",
    "GET /audit": "admin",
    f"GET {DDI}": "the device",
    f"GET {DDI}/deploymentBase/{{action_id}}": "the device",
    f"POST {DDI}/deploymentBase/{{action_id}}/feedback": "the device",
    f"GET {DDI}/installedBase/{{action_id}}": "the device",
    f"GET {DDI}/cancelAction/{{action_id}}": "the device",
    f"POST {DDI}/cancelAction/{{action_id}}/feedback": "the device",
    f"PUT {DDI}/configData": "the device",
    f"GET {DDI}/softwaremodules/{{module_id}}/artifacts": "the device",
    f"GET {DDI}/softwaremodules/{{module_id}}/artifacts/{{filename}}": "the device",
    f"GET {DDI}/softwaremodules/{{module_id}}/artifacts/{{filename}}.MD5SUM": "the device",
}
UNDOCUMENTED = {
    *("GET /docs", "GET /docs/oauth2-redirect", "GET /redoc", "GET /openapi.json"),
    *("HEAD /docs", "HEAD /docs/oauth2-redirect", "HEAD /redoc", "HEAD /openapi.json"),
    f"HEAD {DDI}/softwaremodules/{{module_id}}/artifacts/{{filename}}",
    f"HEAD {DDI}/softwaremodules/{{module_id}}/artifacts/{{filename}}.MD5SUM",
    *("HEAD /firmware/{device_model}/{version}", "HEAD /models/{device_model}/{name}/{version}"),
}
"""Routes outside the document: itself, and HEAD where a GET is."""


def test_every_route_is_in_the_matrix(shared_ota: Ota) -> None:
    assert {f"{method} {path}" for method, path in operations(shared_ota)} == set(MATRIX)


def test_no_route_hides_from_the_document(shared_ota: Ota) -> None:
    from ota_api.app import create_app

    app = create_app(shared_ota.settings)
    routes = {
        f"{method} {getattr(route, 'path', '')}"
        for route in app.routes
        for method in getattr(route, "methods", None) or []
    }
    assert {r for r in routes if "offline" not in r and "static" not in r} <= set(MATRIX) | (
        UNDOCUMENTED
    )


def test_the_matrix_is_the_documented_one() -> None:
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([^|]+) \|", HTTP_MD.read_text(), re.MULTILINE)
    assert dict(rows) == MATRIX


def test_every_route_with_every_caller(ota: Ota) -> None:
    requests = Requests(ota)
    wrong = []
    for operation in operations(ota):
        allowed = WHO[MATRIX[f"{operation.method} {operation.path}"]]
        for caller in CALLERS:
            status = call(ota, requests, operation, caller)
            refusal = 401 if caller == "anonymous" else 403
            good = status in {200, 201, 204} if caller in allowed else status == refusal
            if not good:
                wrong.append(f"{operation.method} {operation.path} as {caller}: {status}")
    assert wrong == []


def call(ota: Ota, requests: Requests, operation: Operation, caller: str) -> int:
    """The status; of HEAD too, where there is one, which must be the same."""
    device_id = requests.new_device()
    path, headers = requests.path(operation, device_id), requests.headers(caller, device_id)
    sent = requests.body(operation)
    own = headers | sent.pop("headers", {})
    status = ota.http.request(operation.method, path, headers=own, **sent).status_code
    if operation.method == "GET":
        assert ota.http.head(path, headers=headers).status_code in {status, 405}
    return status


@pytest.mark.parametrize("caller", ["device", "admin", "service with publish"])
def test_a_refused_caller_changes_nothing(ota: Ota, caller: str) -> None:
    requests = Requests(ota)
    for operation in operations(ota):
        device_id = requests.new_device()
        body, headers = requests.body(operation), requests.headers(caller, device_id)
        path = requests.path(operation, device_id)  # may make what it names, which is recorded
        before = ota.rows("SELECT count(*) FROM audit_log")
        refused = caller not in WHO[MATRIX[f"{operation.method} {operation.path}"]]
        if operation.method in MUTATING and refused:
            own = headers | body.pop("headers", {})
            ota.http.request(operation.method, path, headers=own, **body)
            assert ota.rows("SELECT count(*) FROM audit_log") == before
