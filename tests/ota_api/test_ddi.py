"""hawkBit's device API: who may use it, and what it does with what comes."""

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from tests.conftest import migrated_database
from tests.ota_api.clocks import Clock
from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from tests.ota_api.ddi import GATEWAY, MODEL, DdiDevice, publish
from tests.servers import PostgresServer
from tests.swupdate import cpio
from zenthos_core.database import Database
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

GATEWAY_TOKEN = "a-secret-that-stands-for-every-device"
BUNDLE = cpio({"sw-description": b"software = {};\n", "payload": b"of a gateway\n" * 9_000})
PROCEEDING = {"status": {"execution": "proceeding", "result": {"finished": "none"}}}


@pytest.fixture(scope="module")
def ddi_ota(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Ota]:
    """A server with a tenant and a gateway token, and a release for gateways."""
    url = migrated_database(postgres, Database.OPS)
    settings = make_ota_settings(tmp_path_factory.mktemp("ota"), url)
    changes = {"ddi_tenant": "North-1", "ddi_gateway_token": SecretStr(GATEWAY_TOKEN)}
    with running_ota(settings.model_copy(update=changes)) as running:
        publish(running, BUNDLE)
        with psycopg.connect(url) as connection:  # which holds it: one test fails, others go on
            connection.execute("UPDATE rollouts SET phase_started_at = now() + INTERVAL '1 hour'")
        yield running


@pytest.fixture
def device(ddi_ota: Ota) -> DdiDevice:
    """Registered for this test, with the action it is offered."""
    [(number,)] = ddi_ota.rows("SELECT count(*) FROM devices")
    return DdiDevice(ddi_ota, f"gateway-{number}")


def authorized(ota: Ota, path: str, authorization: str | None) -> httpx.Response:
    headers = {"Authorization": authorization} if authorization else {}
    return ota.http.get(path, headers=headers)


def test_access_rule_1_a_device_speaks_for_itself(ddi_ota: Ota, device: DdiDevice) -> None:
    other = DdiDevice(ddi_ota, "gateway-other")
    viewer = ddi_ota.token(Role.ADMIN)
    unscoped = ddi_ota.token(Role.DEVICE, device.device_id, scopes=[])
    statuses = {
        f"TargetToken {device.token}": 200,
        f"targettoken  {device.token}": 200,
        f"Bearer {device.token}": 200,
        f"TargetToken {other.token}": 403,
        f"TargetToken {viewer}": 403,
        f"TargetToken {unscoped}": 403,
        f"TargetToken {device.token}x": 401,
        f"Basic {device.token}": 401,
        "TargetToken": 401,
        None: 401,
    }
    found = {a: authorized(ddi_ota, device.path, a).status_code for a in statuses}
    assert found == statuses


def test_access_rule_1_a_token_must_hold(ddi_ota: Ota, device: DdiDevice) -> None:
    ddi_ota.send("POST", f"/devices/{device.device_id}/revoke")
    assert device.send("GET").status_code == 401
    device = DdiDevice(ddi_ota, device.device_id)
    ddi_ota.send("POST", f"/devices/{device.device_id}/decommission")
    assert device.send("GET").status_code == 403


def test_access_rule_2_a_gateway_token_speaks_for_devices_in_use(
    ddi_ota: Ota, device: DdiDevice
) -> None:
    gateway = f"GatewayToken {GATEWAY_TOKEN}"
    assert authorized(ddi_ota, device.path, gateway).status_code == 200
    assert authorized(ddi_ota, device.path, f"{gateway}x").status_code == 401
    unknown = "/default/controller/v1/nobody-knows-me"
    assert authorized(ddi_ota, unknown, gateway).status_code == 403
    ddi_ota.send("POST", f"/devices/{device.device_id}/decommission")
    assert authorized(ddi_ota, device.path, gateway).status_code == 403


def test_access_rule_2_there_is_no_gateway_token_by_default(shared_ota: Ota) -> None:
    for token in ("x", "anything"):
        answer = authorized(shared_ota, "/default/controller/v1/gw-1", f"GatewayToken {token}")
        assert answer.status_code == 401


def test_requests_count_as_the_devices(ota_settings: Settings) -> None:
    changes = {"limits_device_per_hour": 5, "ddi_gateway_token": SecretStr(GATEWAY_TOKEN)}
    settings = ota_settings.model_copy(update=changes)
    with running_ota(settings, Clock(time.time())) as ota:  # its hour does not turn
        publish(ota, BUNDLE)
        device, other = DdiDevice(ota), DdiDevice(ota, "gateway-2")
        href = device.action()["deployment"]["chunks"][0]["artifacts"][0]["_links"]
        gateway = f"GatewayToken {GATEWAY_TOKEN}"
        statuses = [authorized(ota, device.path, gateway).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        assert "retry-after" in device.send("GET").headers
        assert device.send("GET", href["download"]["href"]).status_code == 200
        assert other.send("GET").status_code == 200


@pytest.mark.parametrize(
    ("tenant", "status"),
    [("default", 200), ("DEFAULT", 200), ("north-1", 200), ("South", 404), ("a b", 422)],
)
def test_access_rule_3_tenants(ddi_ota: Ota, device: DdiDevice, tenant: str, status: int) -> None:
    path = f"/{tenant}/controller/v1/{device.device_id}"
    assert authorized(ddi_ota, path, f"TargetToken {device.token}").status_code == status


def test_an_action_of_another_device_is_not_found(ddi_ota: Ota, device: DdiDevice) -> None:
    other = DdiDevice(ddi_ota, "gateway-other")
    theirs = other.action()["id"]
    for method, path in [
        ("GET", f"/deploymentBase/{theirs}"),
        ("GET", f"/installedBase/{theirs}"),
        ("GET", f"/cancelAction/{theirs}"),
        ("POST", f"/deploymentBase/{theirs}/feedback"),
        ("POST", f"/cancelAction/{theirs}/feedback"),
        ("GET", f"/softwaremodules/{theirs}/artifacts"),
        ("GET", f"/softwaremodules/{theirs}/artifacts/gateway-v1.2.0.swu"),
        ("GET", f"/softwaremodules/{theirs}/artifacts/gateway-v1.2.0.swu.MD5SUM"),
    ]:
        body = {"json": PROCEEDING} if method == "POST" else {}
        assert device.send(method, path, **body).status_code == 404, path
    assert other.state() == "pending"


def test_the_artifact_whole_in_part_and_by_name(device: DdiDevice) -> None:
    action = device.action()
    [artifact] = action["deployment"]["chunks"][0]["artifacts"]
    assert artifact["hashes"] == {
        "sha1": hashlib.sha1(BUNDLE).hexdigest(),  # noqa: S324
        "md5": hashlib.md5(BUNDLE).hexdigest(),  # noqa: S324
        "sha256": hashlib.sha256(BUNDLE).hexdigest(),
    }
    href = artifact["_links"]["download"]["href"]
    head = device.send("HEAD", href)
    assert head.status_code == 200
    assert int(head.headers["content-length"]) == len(BUNDLE)
    assert device.state() == "pending", "a HEAD is not a download"
    part = device.send("GET", href, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, BUNDLE[100:200])
    assert device.state() == "downloading"
    assert device.send("GET", href).content == BUNDLE
    md5sum = device.send("GET", artifact["_links"]["md5sum"]["href"])
    assert md5sum.text == f"{artifact['hashes']['md5']}  {artifact['filename']}\n"
    assert md5sum.headers["content-type"].startswith("text/plain")
    assert device.send("HEAD", artifact["_links"]["md5sum"]["href"]).status_code == 200
    listed = device.send("GET", f"/softwaremodules/{action['id']}/artifacts").json()
    assert listed == [artifact]
    for name in ("other.swu", "gateway-v1.2.0.bin", "other.swu.MD5SUM", "..%2Fkeys.json"):
        path = f"/softwaremodules/{action['id']}/artifacts/{name}"
        assert device.send("GET", path).status_code == 404


def test_an_action_that_is_over_takes_its_outcome_again_and_nothing_else(
    device: DdiDevice,
) -> None:
    action_id = device.action()["id"]
    assert device.feedback(action_id, "closed", "failure", "no space").status_code == 200
    assert device.feedback(action_id, "closed", "failure", "again").status_code == 200
    assert device.feedback(action_id, "closed", "success").status_code == 410
    assert device.feedback(action_id, "proceeding").status_code == 410
    assert (device.state(), device.state("reason")) == ("failure", "no space")
    assert set(device.links()) == {"configData"}
    name = "gateway-v1.2.0.swu"
    path = f"/softwaremodules/{action_id}/artifacts/{name}"
    assert device.send("GET", path).status_code == 410


def test_the_history_of_an_action(device: DdiDevice) -> None:
    action_id = device.action()["id"]
    device.feedback(action_id, "download")
    device.feedback(action_id, "proceeding", "none", "ERROR of something")
    answer = device.send("GET", f"/deploymentBase/{action_id}?actionHistory=1").json()
    history = answer["actionHistory"]
    assert history["status"] == "RUNNING"
    assert [message.rpartition(" ")[2] for message in history["messages"]] == ["installing"]
    for most, count in [("-1", 2), ("1000000000000", 2)]:
        path = f"/deploymentBase/{action_id}?actionHistory={most}"
        assert len(device.send("GET", path).json()["actionHistory"]["messages"]) >= count
    assert "actionHistory" not in device.send("GET", f"/deploymentBase/{action_id}").json()


def test_a_failure_stops_the_rollout_at_once(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = DdiDevice(ota)
    device.feedback(device.action()["id"], "closed", "failure", "no space")
    deadline = time.monotonic() + 20
    while ota.rows("SELECT state FROM rollouts") != [("paused",)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_newer_release_waits_until_the_older_is_stopped(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = DdiDevice(ota)
    older = device.action()
    device.feedback(older["id"], "proceeding")
    newer = cpio({"sw-description": b"software = {};\n", "payload": b"newer\n"})
    publish(ota, newer, "v1.3.0", required=True)
    assert set(device.links()) == {"cancelAction", "configData"}
    cancel = device.send("GET", device.links()["cancelAction"]).json()
    assert cancel == {"id": older["id"], "cancelAction": {"stopId": older["id"]}}
    assert device.send("GET", f"/deploymentBase/{older['id']}").status_code == 404
    assert device.feedback(older["id"], "proceeding").status_code == 410
    device.feedback(older["id"], "scheduled", of="cancelAction")
    assert "cancelAction" in device.links(), "a device that has not answered yet"
    device.feedback(older["id"], "closed", "success", of="cancelAction")
    offered = device.action()
    assert offered["deployment"]["chunks"][0]["version"] == "v1.3.0"
    handlings = [a["deployment"]["update"] for a in (older, offered)]
    assert handlings == ["attempt", "forced"]


def test_what_is_offered_again_begins_with_a_clean_record(ota: Ota) -> None:
    publish(ota, BUNDLE)
    device = DdiDevice(ota)
    action = device.action()["id"]
    device.feedback(action, "proceeding", "none", "ERROR of the first try")
    newer = publish(ota, cpio({"sw-description": b"software = {};\n", "payload": b"x"}), "v1.3.0")
    assert "cancelAction" in device.links()
    ota.send("POST", f"/releases/{newer['id']}/withdraw", json={"reason": "cold"})
    assert device.action()["id"] == action
    device.feedback(action, "closed", "failure", "no space")
    [(reason,)] = ota.rows(f"SELECT reason FROM deployments WHERE id = {action}")
    assert reason == "no space"


def test_what_is_taken_back_is_no_check_in(ota_settings: Settings) -> None:
    """A device that asks for an older action is refused, and was not offered the newer one."""
    with running_ota(ota_settings) as ota:
        publish(ota, BUNDLE)
        device = DdiDevice(ota)
        action = device.action()["id"]
    ota.rows("UPDATE devices SET checked_in_at = NULL RETURNING id")
    with running_ota(ota_settings) as ota:
        publish(ota, cpio({"sw-description": b"software = {};\n", "payload": b"x"}), "v1.3.0")
        asked = ota.http.get(f"{device.path}/deploymentBase/{action}", headers=device.headers)
        assert asked.status_code == 410
    assert ota.rows("SELECT checked_in_at FROM devices") == [(None,)]


def test_an_action_of_a_paused_rollout_goes_on_only_where_it_has_begun(ota: Ota) -> None:
    publish(ota, BUNDLE)
    begun, waiting = DdiDevice(ota, "gateway-1"), DdiDevice(ota, "gateway-2")
    begun.feedback(begun.action()["id"], "proceeding")
    known = {device: device.action()["id"] for device in (begun, waiting)}
    rollout = begun.state("rollout_id")
    assert ota.send("POST", f"/rollouts/{rollout}/pause", json={}).status_code == 200
    for device, status in ((begun, 200), (waiting, 410)):
        assert ("deploymentBase" in device.links()) is (status == 200)
        for path in (
            f"/deploymentBase/{known[device]}",
            f"/softwaremodules/{known[device]}/artifacts/gateway-v1.2.0.swu",
        ):
            assert device.send("GET", path).status_code == status
    assert waiting.state() == "pending"


def test_a_device_that_will_not_is_not_asked_again(device: DdiDevice) -> None:
    action_id = device.action()["id"]
    assert device.feedback(action_id, "canceled", "none", "not now").status_code == 200
    assert (device.state(), device.state("reason")) == ("aborted", "not now")
    assert device.feedback(action_id, "canceled").status_code == 200
    assert set(device.links()) == {"configData"}


def test_a_device_with_telemetry_is_not_proven_by_its_word(ddi_ota: Ota, device: DdiDevice) -> None:
    action_id = device.action()["id"]
    ddi_ota.rows(
        "UPDATE devices SET last_reading = now(), firmware_version = 'v1.1.0'"
        f" WHERE id = '{device.device_id}' RETURNING id"
    )
    device.configure(firmware_version="v1.2.0")
    assert device.feedback(action_id, "closed", "success").status_code == 200
    device.configure(firmware_version="v1.2.0")
    assert (device.state(), device.runs()) == ("rebooting", "v1.1.0")
    assert set(device.links()) == {"installedBase"}


def test_a_version_told_before_the_action_is_closed_proves_it(device: DdiDevice) -> None:
    action_id = device.action()["id"]
    device.configure(firmware_version="v1.2.0")
    device.feedback(action_id, "closed", "success")
    assert device.state() == "success"


@pytest.mark.parametrize("end", ["timed_out", "aborted"])
def test_what_was_given_up_after_the_closing_is_proven_all_the_same(
    ddi_ota: Ota, device: DdiDevice, end: str
) -> None:
    device.feedback(device.action()["id"], "closed", "success")
    ddi_ota.rows(
        f"UPDATE deployments SET state = '{end}', reason = 'given up'"
        f" WHERE device_id = '{device.device_id}' RETURNING id"
    )
    device.configure(firmware_version="v1.2.0")
    assert (device.state(), device.state("reason")) == ("success", None)
    assert "installedBase" in device.links()


@pytest.mark.parametrize("begun", [("closed", "success"), ("proceeding",)])
def test_the_way_back_reaches_a_device_that_has_begun_with_the_bad_one(
    ota: Ota, begun: tuple[str, ...]
) -> None:
    """It runs v1.1.0 by its last word, and will boot v1.2.0."""
    publish(ota, BUNDLE)
    device = DdiDevice(ota)
    device.configure(firmware_version="v1.1.0")
    first = device.action()["id"]
    assert device.feedback(first, *begun).status_code == 200
    assert device.runs() == "v1.1.0"
    older = ota.signer.firmware(
        BUNDLE + b"older", release_counter=900, device_models=[MODEL], name="gateway",
        version="v1.1.0",
    )  # fmt: skip
    back = ota.publish({**older, "rollout_percentage": 0}, path="/firmware/publish")
    rollout = device.state("rollout_id")
    answer = ota.send(
        "POST", f"/rollouts/{rollout}/rollback", json={"release_id": back.json()["id"]}
    )
    assert answer.status_code == 201, answer.text
    if "cancelAction" in device.links():  # it does not stop
        device.feedback(first, "rejected", of="cancelAction")
        device.feedback(first, "closed", "success")
    offered = device.action()
    assert offered["deployment"]["chunks"][0]["version"] == "v1.1.0"
    device.feedback(offered["id"], "closed", "success")
    assert device.state() == "rebooting", "its word of before the offer proves nothing"
    device.configure(firmware_version="v1.1.0")
    assert device.state() == "success"


def test_config_data_by_its_modes(ddi_ota: Ota, device: DdiDevice) -> None:
    def kept() -> Any:
        query = f"SELECT metadata FROM devices WHERE id = '{device.device_id}'"
        return ddi_ota.rows(query)[0][0]

    before = kept()
    assert device.configure(a="1", b="2").status_code == 200
    assert device.configure(mode="merge", b="3", c="4").status_code == 200
    assert kept()["ddi"] == {"a": "1", "b": "3", "c": "4"}
    assert kept().items() >= before.items()
    assert device.configure(mode="remove", a="").status_code == 200
    assert kept()["ddi"] == {"b": "3", "c": "4"}
    assert device.configure(mode="replace", d="5").status_code == 200
    assert kept()["ddi"] == {"d": "5"}
    most = {f"key-{i}": "x" for i in range(99)}
    assert device.configure(**most).status_code == 200
    assert device.configure(one_more="x").status_code == 422
    assert len(kept()["ddi"]) == 100


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"data": {"a": 1}}',
        b'{"data": {"": "x"}}',
        b'{"data": {"a": "\\u0000"}}',
        b'{"data": {"\\ud800": "x"}}',
        b'{"data": {"a": "\\ud800"}}',
        b'{"mode": "append", "data": {}}',
        json.dumps({"data": {"a": "x" * 129}}).encode(),
        json.dumps({"data": {"x" * 129: "a"}}).encode(),
        json.dumps({"data": {f"key-{i}": "x" for i in range(101)}}).encode(),
    ],
)
def test_bad_config_data_is_a_problem(device: DdiDevice, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = device.send("PUT", "/configData", content=body, headers=headers)
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize(
    "status",
    [
        None,
        {"execution": "closed"},
        {"execution": "flying", "result": {"finished": "none"}},
        {"execution": "closed", "result": {"finished": "perhaps"}},
        {"execution": "closed", "result": {"finished": "none"}, "details": "no list"},
        {"execution": "closed", "result": {"finished": "none"}, "details": [1]},
        {"execution": "closed", "result": {"finished": "none"}, "details": ["\ud800"]},
        {"execution": "closed", "result": {"finished": "none"}, "details": ["x"] * 1_001},
    ],
)
def test_bad_feedback_is_a_problem_and_changes_nothing(device: DdiDevice, status: Any) -> None:
    action_id = device.action()["id"]
    body = {"content": json.dumps({"status": status}), "headers": {"Content-Type": "text/json"}}
    for route in ("deploymentBase", "cancelAction"):
        answer = device.send("POST", f"/{route}/{action_id}/feedback", **body)
        assert answer.status_code in {400, 422}
    assert device.state() == "pending"


@pytest.mark.parametrize("action_id", ["0", "-1", "x", "1.5", "9223372036854775808", "9" * 50])
def test_bad_ids_are_a_problem(device: DdiDevice, action_id: str) -> None:
    for path in (f"/deploymentBase/{action_id}", f"/softwaremodules/{action_id}/artifacts"):
        assert device.send("GET", path).status_code in {404, 422}


def test_a_gateway_is_a_device_of_the_registry(ddi_ota: Ota) -> None:
    device = DdiDevice(ddi_ota, GATEWAY)
    status = ddi_ota.send("GET", f"/devices/{device.device_id}/status").json()
    assert status["device_model"] == MODEL
