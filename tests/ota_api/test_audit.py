"""The audit log: each change with who, when and what, in its own transaction, for ever."""

import psycopg
import pytest
from psycopg import sql

from ota_api.audit.schemas import Action
from tests.ota_api.callers import MUTATING, PASSWORD, SECRET, Operation, Requests, operations
from tests.ota_api.conftest import Ota
from tests.ota_api.test_privileges import MATRIX, WHO

ACTIONS = {
    "POST /auth/login": Action.SESSION_START,
    "POST /auth/refresh": Action.SESSION_REFRESH,
    "POST /auth/logout": Action.SESSION_END,
    "POST /farms": Action.FARM_CREATE,
    "POST /devices/register": Action.DEVICE_REGISTER,
    "POST /devices/bulk": Action.DEVICE_REGISTER,
    "PATCH /devices/{device_id}": Action.DEVICE_UPDATE,
    "POST /devices/{device_id}/token": Action.DEVICE_TOKEN,
    "POST /devices/{device_id}/claim": Action.DEVICE_CLAIM,
    "POST /devices/{device_id}/revoke": Action.DEVICE_REVOKE,
    "POST /devices/{device_id}/decommission": Action.DEVICE_DECOMMISSION,
    "POST /firmware/publish": Action.RELEASE_PUBLISH,
    "POST /models/publish": Action.RELEASE_PUBLISH,
    "POST /alerts/{alert_id}/acknowledge": Action.ALERT_ACKNOWLEDGE,
    "POST /alerts/{alert_id}/resolve": Action.ALERT_RESOLVE,
    "POST /releases/{release_id}/withdraw": Action.RELEASE_WITHDRAW,
    "POST /rollouts": Action.ROLLOUT_CREATE,
    "POST /rollouts/{rollout_id}/start": Action.ROLLOUT_START,
    "POST /rollouts/{rollout_id}/pause": Action.ROLLOUT_PAUSE,
    "POST /rollouts/{rollout_id}/resume": Action.ROLLOUT_RESUME,
    "POST /rollouts/{rollout_id}/abort": Action.ROLLOUT_ABORT,
    "POST /rollouts/{rollout_id}/rollback": Action.ROLLOUT_ROLLBACK,
    "POST /rollouts/{rollout_id}/evaluate": Action.ROLLOUT_FINISH,
}
OWN_LOG = {
    "POST /devices/{device_id}/update-status",
    "POST /hooks/github-release",
    "POST /{tenant}/controller/v1/{controller_id}/deploymentBase/{action_id}/feedback",
    "POST /{tenant}/controller/v1/{controller_id}/cancelAction/{action_id}/feedback",
    "PUT /{tenant}/controller/v1/{controller_id}/configData",
}
"""What devices report is in deployment_events, step by step, and configData is their own; what
GitHub tells is in webhook_deliveries, what is published for it in the audit log (test_hooks)."""


def connect(ota: Ota) -> psycopg.Connection:
    return psycopg.connect(ota.settings.database_url.get_secret_value(), autocommit=True)


def a_caller_of(operation: Operation) -> str:
    allowed = WHO[MATRIX[f"{operation.method} {operation.path}"]]
    return next(c for c in ("anonymous", "device", "admin") if c in allowed)


def is_audited(operation: Operation) -> bool:
    name = f"{operation.method} {operation.path}"
    return operation.method in MUTATING and name not in OWN_LOG


def contents(ota: Ota) -> dict[str, object]:
    """A digest of every table but the log."""
    with connect(ota) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname <> 'audit_log'"
            " AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        query = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} t"
        names = [(name,) for (name,) in names if name != "uploads"]  # an object to be swept
        return {
            name: connection.execute(sql.SQL(query).format(sql.Identifier(name))).fetchone()
            for (name,) in names
        }


def test_every_route_that_changes_something_records_it(ota: Ota) -> None:
    requests = Requests(ota)
    recorded = {}
    for operation in operations(ota):
        if not is_audited(operation):
            continue
        device_id, caller = requests.new_device(), a_caller_of(operation)
        body, headers = requests.body(operation), requests.headers(caller, device_id)
        [(last,)] = ota.rows("SELECT max(id) FROM audit_log")
        ota.http.request(
            operation.method, requests.path(operation, device_id), headers=headers, **body
        )
        entries = ota.rows(f"SELECT action, actor FROM audit_log WHERE id > {last} ORDER BY id")
        # a rollout begins, or one ends and another begins, too
        steps = {"publish": 2, "rollback": 3}.get(operation.path.rpartition("/")[2], 1)
        assert len(entries) == steps, operation
        expected = {"admin": "admin", "device": device_id}.get(caller)
        assert expected in {None, entries[-1][1]}, operation
        recorded[f"{operation.method} {operation.path}"] = entries[-1][0]
    assert recorded == ACTIONS


def test_a_change_that_cannot_be_recorded_is_not_made(ota: Ota) -> None:
    requests = Requests(ota)
    prepared = [
        (op, device, requests.body(op), requests.headers(a_caller_of(op), device))
        for op in operations(ota)
        if is_audited(op)
        for device in [requests.new_device()]
    ]
    with connect(ota) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit_log"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for operation, device_id, body, headers in prepared:
        before = contents(ota)
        answer = ota.http.request(
            operation.method, requests.path(operation, device_id), headers=headers, **body
        )
        assert answer.status_code == 500, operation
        assert contents(ota) == before, operation


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'somebody else'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ],
)
def test_the_log_is_only_added_to(ota: Ota, statement: str) -> None:
    ota.register()
    before = ota.rows("SELECT * FROM audit_log")
    with connect(ota) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement.encode())
    assert ota.rows("SELECT * FROM audit_log") == before


def test_what_changed_nothing_is_not_recorded(ota: Ota) -> None:
    ota.register(tags=["a"])
    ota.send("POST", "/farms", json={"name": "North"})
    ota.send("PATCH", "/devices/field-sensor-001", json={"tags": ["a"]})
    ota.register(device_type="camera")  # refused
    assert ota.rows("SELECT action FROM audit_log ORDER BY id") == [
        ("farm.create",),
        ("device.register",),
    ]


def test_before_and_after_of_a_change(ota: Ota) -> None:
    ota.register(tags=["old"], location={"lat": 1, "lon": 2})
    ota.send("PATCH", "/devices/field-sensor-001", json={"tags": ["new"], "location": None})
    [entry] = ota.send("GET", "/audit", params={"action": "device.update"}).json()["items"]
    assert entry["before"] == {"tags": ["old"], "location": {"lat": 1, "lon": 2}}
    assert entry["after"] == {"tags": ["new"], "location": None}
    assert (entry["actor"], entry["role"], entry["session_id"]) == ("someone", "admin", None)
    assert entry["subject"] == "device field-sensor-001"


def test_a_user_is_recorded_with_the_session(ota: Ota) -> None:
    requests = Requests(ota)
    device_id = requests.new_device()
    headers = requests.headers("admin", device_id)
    ota.http.post(f"/devices/{device_id}/revoke", headers=headers)
    [entry] = ota.send("GET", "/audit", params={"actor": "admin"}).json()["items"]
    assert entry["action"] == "device.revoke"
    assert entry["session_id"] is not None


def test_no_secret_is_recorded(ota: Ota) -> None:
    requests = Requests(ota)
    device_id = requests.new_device()
    tokens = [ota.register("another-one").json()["jwt_token"]]
    claimed = ota.http.post(f"/devices/{device_id}/claim", json={"factory_secret": SECRET}).json()
    session = ota.http.post("/auth/login", json={"username": "viewer", "password": PASSWORD}).json()
    tokens += [claimed["jwt_token"], session["access_token"], session["refresh_token"]]
    log = str(ota.rows("SELECT * FROM audit_log"))
    hashes = ota.rows("SELECT encode(factory_secret_hash, 'hex') FROM devices")
    assert [s for s in (SECRET, PASSWORD, *tokens) if s in log] == []
    assert [h for (h,) in hashes if h and h in log] == []


def test_the_log_in_pages_the_newest_first(ota: Ota) -> None:
    for number in range(5):
        ota.send("POST", "/farms", json={"name": f"Farm {number}"})
    seen: list[str] = []
    after: dict[str, str] = {}
    for _ in range(3):
        page = ota.send("GET", "/audit", params={"limit": 2, **after}).json()
        seen += [entry["subject"] for entry in page["items"]]
        after = {"after": page["next"]}
    assert seen == [f"farm Farm {number}" for number in (4, 3, 2, 1, 0)]
    assert page["next"] is None
    found = ota.send("GET", "/audit", params={"subject": "farm Farm 3"}).json()["items"]
    assert len(found) == 1


@pytest.mark.parametrize(
    "query", [{"after": "x"}, {"after": -1}, {"after": 2**63}, {"action": "x"}]
)
def test_pages_of_the_log_have_bounds(shared_ota: Ota, query: dict[str, object]) -> None:
    assert shared_ota.send("GET", "/audit", params=query).status_code == 422
