"""Rollouts on the real server: who is offered a release, what proves it, what stops it."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.ota_api.conftest import DEVICE_MODEL, Ota
from tests.ota_api.releases import bundle
from zenthos_core.tokens import Role

VERSION = "v1.0.0"
COHORT = {"devices": 10, "readings": 500, "gap_rate": 0.0, "range_violation_rate": 0.0}


class Fleet:
    """Devices of a farm, a firmware release, and ways to move both."""

    def __init__(self, ota: Ota, devices: int) -> None:
        self.ota = ota
        self.devices = [f"unit-{number:03}" for number in range(devices)]
        for device in self.devices:
            assert ota.register(device).status_code == 201
        self.execute("UPDATE devices SET last_seen = now(), created_at = now() - INTERVAL '9 days'")
        self.release = self.publish(VERSION, 1)
        self.counters: dict[str, int] = {}

    def publish(self, version: str, counter: int) -> dict[str, Any]:
        """A release that nothing offers yet."""
        body = self.ota.signer.firmware(
            bundle(version.encode()), version=version, release_counter=counter
        )
        answer = self.ota.publish({**body, "rollout_percentage": 0}, path="/firmware/publish")
        assert answer.status_code == 201, answer.text
        found = self.ota.send("GET", f"/firmware/{DEVICE_MODEL}/{version}").json()
        return {**found, "id": answer.json()["id"]}

    def roll_out(self, **wanted: Any) -> str:
        """A rollout of the release; its id."""
        body = {"release_id": self.release["id"], "phases": [100], **wanted}
        answer = self.ota.send("POST", "/rollouts", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def check_in(self, device: str) -> dict[str, Any]:
        """What the device is offered, or the problem."""
        headers = self.ota.headers(Role.DEVICE, device)
        answer = self.ota.http.get(f"/firmware/{DEVICE_MODEL}/latest", headers=headers)
        return {"status_code": answer.status_code, **answer.json()}

    def report(self, device: str, deployment_id: int, state: str, **told: Any) -> Any:
        """The answer to a report with the device's next counter."""
        self.counters[device] = self.counters.get(device, 0) + 1
        body = {"deployment_id": deployment_id, "report_counter": self.counters[device]}
        return self.ota.http.post(
            f"/devices/{device}/update-status",
            headers=self.ota.headers(Role.DEVICE, device),
            json={**body, "state": state, **told},
        )

    def update(self, device: str) -> int:
        """Up to the confirmed boot; the deployment's id."""
        offer = self.check_in(device)
        assert offer["status_code"] == 200, offer
        told = {"version": offer["version"], "sha256": offer["sha256"]}
        assert self.report(device, offer["deployment_id"], "rebooting").status_code == 200
        answer = self.report(device, offer["deployment_id"], "success", **told)
        assert answer.json()["state"] == "rebooting", answer.text
        return int(offer["deployment_id"])

    def read(self, device: str, times: int = 3, version: str = VERSION, **columns: Any) -> None:
        """Readings that ingest has stored."""
        values = {"firmware_version": version, **columns}
        names = ", ".join(values)
        for _ in range(times):
            self.execute(
                "INSERT INTO telemetry_hot"
                f" (time, message_id, device_id, farm_id, received_at, {names})"
                f" SELECT now(), %s, id, farm_id, now(), {', '.join(['%s'] * len(values))}"
                " FROM devices WHERE id = %s",
                uuid.uuid4(), *values.values(), device,
            )  # fmt: skip

    def prove(self, device: str) -> None:
        """An update that has succeeded but for the evaluation."""
        self.update(device)
        self.read(device)

    def evaluate(self, rollout: str, **evidence: Any) -> dict[str, Any]:
        """What the lineage's sensor has decided."""
        answer = self.ota.send("POST", f"/rollouts/{rollout}/evaluate", json=evidence)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def states(self, rollout: str) -> dict[str, int]:
        """Deployments by state."""
        return dict(self.ota.send("GET", f"/rollouts/{rollout}").json()["states"])

    def await_state(self, rollout: str, state: str) -> dict[str, Any]:
        """The rollout, once what follows upon a report has been done."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.ota.send("GET", f"/rollouts/{rollout}").json()
            if found["state"] == state:
                return dict(found)
            time.sleep(0.02)
        raise AssertionError(f"the rollout has not become {state}: {found}")

    def execute(self, query: str, *values: Any) -> None:
        """Change the database as time or ingest would."""
        url = self.ota.settings.database_url.get_secret_value()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(query.encode(), values)

    def let_pass(self, interval: str) -> None:
        """All that has happened lies that much further back."""
        self.execute(
            "UPDATE deployments SET changed_at = changed_at - %s::interval,"
            " offered_at = offered_at - %s::interval", interval, interval,
        )  # fmt: skip
        self.execute(
            "UPDATE rollouts SET started_at = started_at - %s::interval,"
            " phase_started_at = phase_started_at - %s::interval", interval, interval,
        )  # fmt: skip


@pytest.fixture
def fleet(ota: Ota) -> Iterator[Fleet]:
    fleet = Fleet(ota, 4)
    fleet.execute("CREATE TABLE telemetry_all PARTITION OF telemetry_hot DEFAULT")
    return fleet


def test_success_takes_three_good_readings_of_the_version(fleet: Fleet) -> None:
    rollout, device = fleet.roll_out(), fleet.devices[0]
    fleet.read(device, 5)  # before the boot was confirmed
    fleet.update(device)
    fleet.read(device, 2)
    fleet.read(device, 3, version="v0.9.0")
    fleet.read(device, 3, backlog=True)
    fleet.read(fleet.devices[1], 3)
    assert fleet.evaluate(rollout)["proven"] == 0
    fleet.read(device, 1)
    assert fleet.evaluate(rollout)["proven"] == 1
    assert fleet.states(rollout) == {"success": 1}
    [deployment] = fleet.ota.send("GET", f"/devices/{device}/deployments").json()["items"]
    assert deployment["state"] == "success"
    steps = [event["state"] for event in deployment["events"]]
    assert steps == ["pending", "rebooting", "rebooting", "success"]


def test_a_device_shows_what_it_is_being_updated_to(fleet: Fleet) -> None:
    rollout, device = fleet.roll_out(), fleet.devices[0]

    def pending() -> list[Any]:
        paths = (f"/devices/{device}/status", "/devices?limit=1")
        one, page = (fleet.ota.send("GET", path).json() for path in paths)
        return [one["pending_update"], page["items"][0]["pending_update"]]

    assert pending() == [None, None]
    fleet.prove(device)
    assert pending() == [VERSION, VERSION]
    fleet.evaluate(rollout)
    assert pending() == [None, None]


def test_a_model_is_proven_by_its_own_version(fleet: Fleet) -> None:
    model = fleet.ota.signer.model()
    assert fleet.ota.publish(model).status_code == 201
    device = fleet.devices[0]
    headers = fleet.ota.headers(Role.DEVICE, device)
    offer = fleet.ota.http.get(f"/models/{DEVICE_MODEL}/irrigation/latest", headers=headers).json()
    told = {"version": offer["version"], "sha256": offer["sha256"]}
    fleet.report(device, offer["deployment_id"], "success", **told)
    fleet.read(device, 3)
    rollout = fleet.ota.send("GET", "/rollouts").json()["items"][0]["id"]
    assert fleet.evaluate(rollout)["proven"] == 0
    fleet.read(device, 3, model_version=offer["version"])
    assert fleet.evaluate(rollout)["proven"] == 1


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"version": VERSION, "sha256": "ab" * 32}, "hash_mismatch"),
        ({"version": "v0.9.0", "sha256": "ab" * 32}, "version_mismatch"),
        ({}, "version_mismatch"),
    ],
)
def test_a_boot_into_something_else_is_a_failure(
    fleet: Fleet, told: dict[str, str], reason: str
) -> None:
    fleet.roll_out()
    offer = fleet.check_in(fleet.devices[0])
    answer = fleet.report(fleet.devices[0], offer["deployment_id"], "success", **told).json()
    assert (answer["state"], answer["stage"], answer["reason"]) == ("failure", "confirm", reason)


def test_a_replayed_report_and_one_of_another_device_are_refused(fleet: Fleet) -> None:
    fleet.roll_out()
    one, other = fleet.devices[:2]
    deployment = fleet.check_in(one)["deployment_id"]
    assert fleet.report(one, deployment, "downloading").status_code == 200
    fleet.counters[one] = 0
    again = fleet.report(one, deployment, "downloading")
    assert again.status_code == 409
    assert "the next is 2" in again.json()["detail"]
    assert fleet.report(other, deployment, "failure", stage="x").status_code == 404
    path = f"/devices/{one}/update-status"
    foreign = fleet.ota.http.post(path, headers=fleet.ota.headers(Role.DEVICE, other), json={
        "deployment_id": deployment, "report_counter": 9, "state": "failure", "stage": "x",
    })  # fmt: skip
    assert foreign.status_code == 403


def test_silence_is_a_failure(fleet: Fleet) -> None:
    rollout = fleet.roll_out(timeout_s=3600, error_threshold=0.5)
    fleet.check_in(fleet.devices[0])
    fleet.let_pass("2 hours")
    fleet.execute("UPDATE devices SET last_seen = now() - INTERVAL '9 days' WHERE id > 'unit-001'")
    fleet.execute("UPDATE devices SET checked_in_at = NULL")
    found = fleet.evaluate(rollout)
    assert found["timed_out"] == 2, "one that was offered it, one alive that never asked"
    assert found["action"] == "pause"
    rows = fleet.ota.send("GET", f"/rollouts/{rollout}/deployments").json()["items"]
    assert [(r["device_id"], r["state"], r["stage"], r["reason"]) for r in rows] == [
        ("unit-000", "timed_out", "pending", "not_begun"),
        ("unit-001", "timed_out", "check-in", "never_asked"),
    ]
    assert fleet.check_in("unit-000")["status_code"] == 403


def test_who_was_off_before_is_offered_it_when_it_returns(fleet: Fleet) -> None:
    rollout = fleet.roll_out(timeout_s=3600)
    fleet.execute("UPDATE devices SET last_seen = now() - INTERVAL '9 days' WHERE id > 'unit-001'")
    for device in fleet.devices[:2]:
        fleet.prove(device)
    assert fleet.evaluate(rollout)["action"] == "finish", "two are away, and none of its concern"
    assert fleet.check_in(fleet.devices[3])["version"] == VERSION


def test_phases_only_add_devices(ota: Ota) -> None:
    fleet = Fleet(ota, 24)
    rollout = fleet.roll_out(phases=[25, 100], success_threshold=1)
    fleet.execute("CREATE TABLE telemetry_all PARTITION OF telemetry_hot DEFAULT")
    first = {d for d in fleet.devices if fleet.check_in(d)["status_code"] == 200}
    assert 0 < len(first) < len(fleet.devices)
    for device in first:
        fleet.prove(device)
    assert fleet.evaluate(rollout)["action"] == "advance"
    second = {d for d in fleet.devices if fleet.check_in(d)["status_code"] == 200}
    assert second == set(fleet.devices)
    assert fleet.evaluate(rollout)["action"] == "hold"


def test_a_failure_stops_the_rollout_at_once_and_tells_people(fleet: Fleet) -> None:
    rollout = fleet.roll_out(error_threshold=0.1)
    one, other = fleet.devices[:2]
    deployment = fleet.check_in(one)["deployment_id"]
    fleet.report(one, deployment, "failure", stage="boot", reason="panic")
    found = fleet.await_state(rollout, "paused")
    assert "1 of 1 devices failed" in found["paused_reason"]
    assert found["failures"] == [{"stage": "boot", "reason": "panic", "devices": 1}]
    assert fleet.check_in(other)["status_code"] == 403
    alerts = (
        "SELECT alert_type, severity, resolved_at IS NULL, evidence #>> '{counts,phase_failed}'"
    )
    assert fleet.ota.rows(f"{alerts} FROM alerts") == [("rollout_paused", "critical", True, "1")]
    [event, created] = fleet.ota.send("GET", f"/rollouts/{rollout}/events").json()["items"]
    assert (event["action"], event["actor"]) == ("rollout.pause", "ota-api")
    assert event["after"]["evidence"]["counts"]["phase_failed"] == 1
    assert event["after"]["reasons"][0]["word"] == "failures"
    assert created["action"] == "rollout.create"

    assert fleet.ota.send("POST", f"/rollouts/{rollout}/resume").json()["state"] == "running"
    assert fleet.ota.rows("SELECT resolved_by FROM alerts") == [("someone",)]
    assert fleet.evaluate(rollout)["action"] == "hold", "what failed before is not counted again"
    assert fleet.check_in(other)["status_code"] == 200
    assert fleet.check_in(one)["status_code"] == 403, "it failed before"


def test_worse_data_stops_the_rollout_with_its_evidence(fleet: Fleet) -> None:
    rollout = fleet.roll_out()
    quality = {"measured_at": time.time(), "window_s": 3600, "control": COHORT}
    worse = {**COHORT, "range_violation_rate": 0.4}
    found = fleet.evaluate(rollout, quality={**quality, "updated": worse})
    assert (found["action"], found["state"]) == ("pause", "paused")
    assert [reason["word"] for reason in found["reasons"]] == ["range_violation_rate"]
    event = fleet.ota.send("GET", f"/rollouts/{rollout}/events").json()["items"][0]
    assert event["after"]["evidence"]["quality"]["updated"]["range_violation_rate"] == 0.4


def test_an_abort_in_the_middle_ends_what_is_open_and_hears_what_became_of_it(
    fleet: Fleet,
) -> None:
    rollout = fleet.roll_out()
    offers = [fleet.check_in(device) for device in fleet.devices[:3]]
    fleet.report(fleet.devices[0], offers[0]["deployment_id"], "downloading")
    aborted = fleet.ota.send("POST", f"/rollouts/{rollout}/abort", json={"reason": "a typo"})
    assert aborted.json()["state"] == "aborted"
    assert fleet.states(rollout) == {"aborted": 3}
    assert fleet.check_in(fleet.devices[0])["status_code"] == 403
    fleet.report(fleet.devices[0], offers[0]["deployment_id"], "installing")
    told = {"version": offers[1]["version"], "sha256": offers[1]["sha256"]}
    fleet.report(fleet.devices[1], offers[1]["deployment_id"], "already-installed", **told)
    fleet.report(fleet.devices[2], offers[2]["deployment_id"], "failure", stage="flash")
    assert fleet.states(rollout) == {"aborted": 1, "already-installed": 1, "failure": 1}
    for verb in ("start", "pause", "resume", "abort"):
        body = {"json": {}} if verb in {"pause", "abort"} else {}
        assert fleet.ota.send("POST", f"/rollouts/{rollout}/{verb}", **body).status_code == 409


def test_the_way_back_is_a_release_of_a_higher_counter(fleet: Fleet) -> None:
    rollout = fleet.roll_out()
    fleet.prove(fleet.devices[0])
    older = {"release_id": fleet.release["id"]}
    refused = fleet.ota.send("POST", f"/rollouts/{rollout}/rollback", json=older)
    assert refused.status_code == 422
    assert "reissue" in refused.json()["detail"]
    back = fleet.publish("v1.0.1", 2)
    answer = fleet.ota.send(
        "POST", f"/rollouts/{rollout}/rollback", json={"release_id": back["id"]}
    )
    assert answer.status_code == 201
    assert answer.json()["rollback_of"] == rollout
    assert fleet.ota.send("GET", f"/rollouts/{rollout}").json()["state"] == "aborted"
    assert all(fleet.check_in(device)["version"] == "v1.0.1" for device in fleet.devices)
    actions = [e["action"] for e in fleet.ota.send("GET", "/audit").json()["items"][:3]]
    assert actions == ["rollout.rollback", "rollout.create", "rollout.abort"]


def test_devices_that_come_later_are_in(fleet: Fleet) -> None:
    rollout = fleet.roll_out(tag="pilot")
    assert {fleet.check_in(device)["status_code"] for device in fleet.devices} == {403}
    fleet.ota.send("PATCH", f"/devices/{fleet.devices[0]}", json={"tags": ["pilot"]})
    fleet.prove(fleet.devices[0])
    assert fleet.evaluate(rollout)["action"] == "finish"
    fleet.ota.register("unit-new", tags=["pilot"])
    assert fleet.check_in("unit-new")["version"] == VERSION


def test_created_is_offered_to_nobody_until_it_is_started(fleet: Fleet) -> None:
    rollout = fleet.roll_out(start=False)
    assert fleet.check_in(fleet.devices[0])["status_code"] == 403
    assert fleet.evaluate(rollout)["reasons"][0]["word"] == "not_running"
    fleet.ota.send("POST", f"/rollouts/{rollout}/start")
    assert fleet.check_in(fleet.devices[0])["status_code"] == 200


def test_what_cannot_be_rolled_out(fleet: Fleet) -> None:
    def refused(**wanted: Any) -> int:
        body = {"release_id": fleet.release["id"], **wanted}
        return fleet.ota.send("POST", "/rollouts", json=body).status_code

    assert refused(release_id=str(uuid.uuid4())) == 404
    assert refused(device_model="esp32-cam") == 404
    assert refused(farm_id=str(uuid.uuid4())) == 404
    assert refused(phases=[10, 5]) == 422
    assert refused(phases=[]) == 422
    assert refused(phases=[0.0]) == 422
    assert refused(phases=[0.004]) == 422
    assert refused(phases=[1, 1.001, 100]) == 422
    assert refused(error_threshold=1.0) == 422
    fleet.execute("UPDATE releases SET expires_at = now() - INTERVAL '1 second'")
    assert refused() == 409
    fleet.execute("UPDATE releases SET expires_at = now() + INTERVAL '9 days'")
    fleet.roll_out()
    assert refused() == 409


def test_gateways_that_send_no_telemetry_are_waited_for(fleet: Fleet) -> None:
    fleet.execute(
        "UPDATE devices SET last_seen = NULL, checked_in_at = now() - INTERVAL '10 minutes'"
    )
    rollout = fleet.roll_out()
    fleet.prove(fleet.devices[0])
    told = fleet.evaluate(rollout)
    assert (told["action"], told["reasons"][0]["word"]) == ("hold", "waiting_for_successes")


def test_a_device_cannot_speak_as_the_server(fleet: Fleet) -> None:
    fleet.roll_out(error_threshold=0.9, min_devices=50)
    device = fleet.devices[0]
    deployment = fleet.check_in(device)["deployment_id"]
    fleet.report(device, deployment, "aborted", reason="superseded")
    assert fleet.check_in(device)["reason"] == "failed_before"
    assert fleet.ota.rows("SELECT reason FROM deployments") == [("device: superseded",)]


def test_reports_that_repeat_are_one_event(fleet: Fleet) -> None:
    fleet.roll_out()
    device = fleet.devices[0]
    deployment = fleet.check_in(device)["deployment_id"]
    for _ in range(5):
        assert fleet.report(device, deployment, "downloading").status_code == 200
    events = fleet.ota.rows("SELECT state FROM deployment_events ORDER BY id")
    assert events == [("pending",), ("downloading",)]


def test_a_device_that_is_decommissioned_leaves_without_a_failure(fleet: Fleet) -> None:
    rollout = fleet.roll_out(timeout_s=3600)
    leaving, *staying = fleet.devices
    deployment_id = fleet.check_in(leaving)["deployment_id"]
    assert fleet.report(leaving, deployment_id, "downloading").status_code == 200
    fleet.ota.send("POST", f"/devices/{leaving}/decommission")
    for device in staying:
        fleet.prove(device)
    fleet.let_pass("2 hours")
    assert fleet.evaluate(rollout)["action"] == "finish"
    assert fleet.states(rollout) == {"aborted": 1, "success": 3}
    told = "SELECT state FROM deployment_events WHERE reason = 'decommissioned'"
    assert fleet.ota.rows(told) == [("aborted",)]


def test_what_was_offered_and_not_begun_is_offered_again(fleet: Fleet) -> None:
    rollout = fleet.roll_out(timeout_s=3600, error_threshold=0.9, min_devices=50)
    fleet.check_in(fleet.devices[0])
    fleet.let_pass("2 hours")
    query = "SELECT state, reason FROM deployments WHERE device_id = 'unit-000'"
    fleet.evaluate(rollout)
    assert fleet.ota.rows(query) == [("timed_out", "not_begun")]
    assert fleet.ota.send("POST", f"/rollouts/{rollout}/resume").status_code == 200
    fleet.check_in("unit-000")
    assert fleet.ota.rows(query) == [("pending", None)]
