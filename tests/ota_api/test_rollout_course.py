"""The course of a rollout on a real server: what devices report, what is decided, how it ends."""

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.service import Rollouts
from tests.ota_api.conftest import DEVICE_MODEL, Ota
from tests.ota_api.releases import bundle
from tests.ota_api.test_offers import await_lock
from zenthos_core.tokens import Role

VERSION = "v1.2.0"


class Field:
    """A server with a release, and devices."""

    def __init__(self, ota: Ota) -> None:
        self.ota = ota
        self.counters: dict[int, int] = {}
        self._releases = 0
        self.sha256 = ""
        self.execute("CREATE TABLE telemetry_now PARTITION OF telemetry_hot DEFAULT")

    def execute(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        url = self.ota.settings.database_url.get_secret_value()
        with psycopg.connect(url) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def devices(self, count: int) -> list[str]:
        """Alive, and asking since the day before."""
        names = [f"field-{number:02}" for number in range(count)]
        for name in names:
            assert self.ota.register(name).status_code == 201
        self.execute(
            "UPDATE devices SET last_seen = now(), checked_in_at = now() - INTERVAL '1 day',"
            " created_at = now() - INTERVAL '9 days'"
        )
        return names

    def release(self, version: str = VERSION) -> str:
        self._releases += 1
        binary = bundle(version.encode())
        release = self.ota.signer.firmware(binary, version=version, release_counter=self._releases)
        body = {**release, "rollout_percentage": 0}
        answer = self.ota.publish(body, path="/firmware/publish").json()
        self.sha256 = hashlib.sha256(binary).hexdigest()
        return str(answer["id"])

    def rollout(self, release: str | None = None, **changes: object) -> str:
        body = {"release_id": release or self.release(), "phases": [100], **changes}
        answer = self.send("POST", "/rollouts", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.ota.send(method, path, Role.ADMIN, **options)

    def steer(self, rollout: str, step: str, **body: object) -> httpx.Response:
        return self.send("POST", f"/rollouts/{rollout}/{step}", json=body)

    def evaluate(self, rollout: str) -> dict[str, Any]:
        answer = self.steer(rollout, "evaluate")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def show(self, rollout: str) -> dict[str, Any]:
        return dict(self.send("GET", f"/rollouts/{rollout}").json())

    def offer(self, rollout: str, device: str) -> int:
        """As the check-in does."""
        [(number,)] = self.execute(
            "INSERT INTO deployments (rollout_id, device_id, phase, offered_at, changed_at)"
            " VALUES (%s, %s, 1, now(), now()) RETURNING id",
            rollout, device,
        )  # fmt: skip
        return int(number)

    def report(self, device: str, deployment: int, state: str, **told: object) -> httpx.Response:
        self.counters[deployment] = self.counters.get(deployment, 0) + 1
        body = {
            "deployment_id": deployment,
            "report_counter": self.counters[deployment],
            "state": state,
            **told,
        }
        headers = self.ota.headers(Role.DEVICE, device)
        return self.ota.http.post(f"/devices/{device}/update-status", json=body, headers=headers)

    def confirm(self, device: str, deployment: int) -> None:
        told = {"version": VERSION, "sha256": self.sha256}
        assert self.report(device, deployment, "success", **told).json()["state"] == "rebooting"

    def send_readings(self, device: str, count: int, version: str = VERSION) -> None:
        self.execute(
            "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, firmware_version,"
            " received_at) SELECT now(), gen_random_uuid(), id, farm_id, %s, clock_timestamp()"
            " FROM devices, generate_series(1, %s) WHERE id = %s",
            version, count, device,
        )  # fmt: skip

    def update(self, rollout: str, device: str) -> None:
        """All of it."""
        deployment = self.offer(rollout, device)
        self.confirm(device, deployment)
        self.send_readings(device, 3)

    def states(self, rollout: str) -> list[str]:
        rows = self.execute(
            "SELECT state FROM deployments WHERE rollout_id = %s ORDER BY id", rollout
        )
        return [state for (state,) in rows]

    def alerts(self) -> list[tuple[Any, ...]]:
        return self.execute("SELECT alert_type, resolved_at IS NOT NULL, occurrences FROM alerts")


@pytest.fixture
def field(ota: Ota) -> Field:
    return Field(ota)


def test_a_success_is_proven_by_three_readings_and_finishes(field: Field) -> None:
    [device] = field.devices(1)
    rollout = field.rollout()
    deployment = field.offer(rollout, device)
    for state in ("downloading", "installing", "rebooting"):
        assert field.report(device, deployment, state).json()["state"] == state
    field.send_readings(device, 3)  # before the boot was confirmed: proves nothing
    field.confirm(device, deployment)
    field.send_readings(device, 2)
    field.send_readings(device, 3, "v1.1.0")
    found = field.evaluate(rollout)
    assert (found["action"], found["proven"], found["counts"]["succeeded"]) == ("hold", 0, 0)
    field.send_readings(device, 1)
    found = field.evaluate(rollout)
    assert (found["action"], found["proven"], found["state"]) == ("finish", 1, "finished")
    [shown] = field.send("GET", f"/devices/{device}/deployments").json()["items"]
    steps = [event["state"] for event in shown["events"]]
    assert steps == ["downloading", "installing", "rebooting", "rebooting", "success"]


def test_a_confirmation_said_again_moves_neither_proof_nor_timeout(field: Field) -> None:
    [device] = field.devices(1)
    rollout = field.rollout()
    deployment = field.offer(rollout, device)
    field.confirm(device, deployment)
    query = "SELECT confirmed_at, changed_at FROM deployments"
    before = field.execute(query)
    field.confirm(device, deployment)
    assert field.execute(query) == before
    field.report(device, deployment, "downloading")  # it begins again: what was said is void
    assert field.execute(query)[0][0] is None


def test_a_report_is_heard_once_and_of_its_own_device_alone(field: Field) -> None:
    mine, other = field.devices(2)
    deployment = field.offer(field.rollout(), mine)
    assert field.report(mine, deployment, "downloading").status_code == 200
    field.counters[deployment] = 0
    assert field.report(mine, deployment, "failure", stage="verify").status_code == 409
    assert field.report(other, deployment, "downloading").status_code == 404
    body = {"deployment_id": deployment, "report_counter": 9, "state": "downloading"}
    headers = field.ota.headers(Role.DEVICE, other)
    path = f"/devices/{mine}/update-status"
    assert field.ota.http.post(path, json=body, headers=headers).status_code == 403


def test_a_failure_halts_the_rollout_at_once_and_a_resume_does_not_count_it(field: Field) -> None:
    one, two = field.devices(2)
    rollout = field.rollout()
    field.offer(rollout, two)
    deployment = field.offer(rollout, one)
    told = {"version": VERSION, "sha256": "0" * 64}
    answer = field.report(one, deployment, "success", **told).json()
    assert (answer["state"], answer["reason"]) == ("failure", "hash_mismatch")
    shown = wait_until_paused(field, rollout)
    assert shown["failures"] == [{"stage": "confirm", "reason": "hash_mismatch", "devices": 1}]
    assert field.alerts() == [("rollout_paused", False, 1)]
    [event, *_] = field.send("GET", f"/rollouts/{rollout}/events").json()["items"]
    assert (event["action"], event["actor"]) == ("rollout.pause", "ota-api")
    assert event["after"]["reasons"][0]["word"] == "failures"
    assert event["after"]["evidence"]["counts"]["phase_failed"] == 1
    assert shown["evaluation"]["reasons"] == event["after"]["reasons"]
    assert field.steer(rollout, "resume").status_code == 200
    assert field.alerts() == [("rollout_paused", True, 1)]
    assert field.evaluate(rollout)["action"] == "hold"


def wait_until_paused(field: Field, rollout: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (shown := field.show(rollout))["state"] != "paused":
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
    return shown


def test_many_failures_at_once_pause_once(field: Field) -> None:
    devices = field.devices(12)
    rollout = field.rollout(min_devices=12)
    offers = {device: field.offer(rollout, device) for device in devices}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda d: field.report(d, offers[d], "failure", stage="install"), devices))
    wait_until_paused(field, rollout)
    assert field.alerts() == [("rollout_paused", False, 1)]
    pauses = field.execute("SELECT count(*) FROM audit_log WHERE action = 'rollout.pause'")
    assert pauses == [(1,)]


def test_a_phase_waits_for_devices_that_had_asked_in_the_phase_before(field: Field) -> None:
    devices = field.devices(30)
    rollout = field.rollout(phases=[40, 100])
    members = field.execute("SELECT id FROM devices WHERE rollout_bucket(%s, id) < 4000", rollout)
    field.execute("UPDATE devices SET checked_in_at = now()")
    assert 0 < len(members) < len(devices)
    for (device,) in members:
        field.update(rollout, device)
    assert field.evaluate(rollout)["action"] == "advance"
    field.execute("UPDATE rollouts SET phase_started_at = phase_started_at + INTERVAL '1 second'")
    time.sleep(1)
    found = field.evaluate(rollout)
    assert (found["action"], found["phase"]) == ("hold", 2)
    assert found["counts"]["answering"] == 30
    shown = field.show(rollout)["evaluation"]
    assert (shown["action"], shown["reasons"]) == ("hold", found["reasons"])


def test_a_phase_without_devices_is_passed_over(field: Field) -> None:
    [device] = field.devices(1)
    rollout = field.rollout(phases=[0.01, 100])
    found = field.evaluate(rollout)
    assert (found["action"], found["phase"], found["reasons"][0]["word"]) == (
        "advance", 2, "no_members",
    )  # fmt: skip
    field.update(rollout, device)
    assert field.evaluate(rollout)["action"] == "finish"


def test_silence_times_out_and_the_truth_that_comes_late_is_recorded(field: Field) -> None:
    begun, waiting = field.devices(2)
    rollout = field.rollout(timeout_s=60, error_threshold=0.9)
    deployment = field.offer(rollout, begun)
    field.offer(rollout, waiting)
    field.report(begun, deployment, "downloading")
    field.execute("UPDATE deployments SET changed_at = now() - INTERVAL '2 minutes'")
    field.execute("UPDATE rollouts SET phase_started_at = now() - INTERVAL '2 minutes'")
    assert field.evaluate(rollout)["timed_out"] == 2
    reasons = field.execute("SELECT stage, reason FROM deployments ORDER BY id")
    assert reasons == [("downloading", "silent"), ("pending", "not_begun")]
    field.confirm(begun, deployment)
    field.send_readings(begun, 3)
    field.evaluate(rollout)
    assert field.states(rollout) == ["success", "timed_out"]


def test_a_pause_does_not_let_time_out_what_may_not_begin(field: Field) -> None:
    [device] = field.devices(1)
    rollout = field.rollout(timeout_s=60)
    field.offer(rollout, device)
    assert field.steer(rollout, "pause", reason="rain").json()["paused_reason"] == "rain"
    field.execute("UPDATE deployments SET changed_at = now() - INTERVAL '2 minutes'")
    assert field.evaluate(rollout)["timed_out"] == 0
    field.steer(rollout, "resume")
    assert field.evaluate(rollout)["timed_out"] == 0
    assert field.states(rollout) == ["pending"]


def test_an_abort_ends_what_is_open_and_hears_what_happened_all_the_same(field: Field) -> None:
    one, two = field.devices(2)
    rollout = field.rollout()
    loading, waiting = field.offer(rollout, one), field.offer(rollout, two)
    field.report(one, loading, "downloading")
    assert field.steer(rollout, "abort", reason="wrong pins").json()["state"] == "aborted"
    assert field.states(rollout) == ["aborted", "aborted"]
    assert field.report(two, waiting, "installing").json()["state"] == "aborted"
    field.confirm(one, loading)
    field.send_readings(one, 3)
    found = field.evaluate(rollout)
    assert (found["action"], found["proven"]) == ("hold", 1)
    assert field.states(rollout) == ["success", "aborted"]
    assert field.steer(rollout, "resume").status_code == 409


def test_the_way_back_is_a_higher_counter_of_the_same_name(field: Field) -> None:
    [device] = field.devices(1)
    older, bad = field.release("v1.1.0"), field.release()
    rollout = field.rollout(bad, tag=None)
    field.update(rollout, device)
    field.evaluate(rollout)
    refused = field.steer(rollout, "rollback", release_id=older)
    assert refused.status_code == 422
    assert "reissue" in refused.text
    assert "reissue" in field.steer(rollout, "rollback", release_id=bad).json()["detail"]
    model = field.ota.publish(field.ota.signer.model(release_counter=50)).json()["id"]
    assert field.steer(rollout, "rollback", release_id=model).status_code == 422
    missing = "00000000-0000-4000-8000-000000000000"
    assert field.steer(rollout, "rollback", release_id=missing).status_code == 404
    assert field.show(rollout)["state"] == "finished", "nothing was half done"
    back = field.steer(rollout, "rollback", release_id=field.release("v1.3.0")).json()
    assert (back["rollback_of"], back["phases"], back["state"]) == (rollout, [100], "running")
    assert field.show(rollout)["state"] == "aborted"
    assert field.states(rollout) == ["success"], "what it has, it has"


def test_who_leaves_a_rollout_before_it_begins_is_no_failure_of_it(field: Field) -> None:
    one, two = field.devices(2)
    field.execute("UPDATE devices SET tags = ARRAY['canary']")
    rollout = field.rollout(tag="canary", timeout_s=60)
    for device in (one, two):
        field.offer(rollout, device)
    assert field.report(two, 2, "downloading").status_code == 200
    assert field.send("PATCH", f"/devices/{one}", json={"tags": []}).status_code == 200
    assert field.send("PATCH", f"/devices/{two}", json={"tags": []}).status_code == 200
    assert field.evaluate(rollout)["timed_out"] == 0
    assert field.states(rollout) == ["aborted", "downloading"]
    assert field.send("PATCH", f"/devices/{one}", json={"tags": ["canary"]}).status_code == 200
    headers = field.ota.headers(Role.DEVICE, one)
    assert field.ota.http.get(f"/firmware/{DEVICE_MODEL}/latest", headers=headers).is_success
    assert field.states(rollout) == ["pending", "downloading"]


def test_a_withdrawal_ends_what_a_finished_rollout_has_left_open(field: Field) -> None:
    one, two = field.devices(2)
    release = field.release()
    rollout = field.rollout(release, success_threshold=0.5, min_devices=1)
    field.update(rollout, one)
    assert field.report(two, field.offer(rollout, two), "downloading").status_code == 200
    assert field.evaluate(rollout)["action"] == "finish"
    answer = field.send("POST", f"/releases/{release}/withdraw", json={"reason": "cold"})
    assert answer.status_code == 200
    assert field.show(rollout)["state"] == "finished"
    assert field.states(rollout) == ["success", "aborted"]


def test_a_way_back_waits_for_who_withdraws_it_and_not_the_other_way_round(field: Field) -> None:
    rollout, back = field.rollout(), field.release("v1.1.9")
    url = field.ota.settings.database_url.get_secret_value()
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as withdrawing:
        withdrawing.execute("SELECT FROM releases WHERE id = %s FOR UPDATE", (back,))
        answer = pool.submit(field.steer, rollout, "rollback", release_id=back)
        await_lock(field.ota)
        withdrawing.execute("UPDATE catalogue SET version = version + 1")
        withdrawing.commit()
        assert answer.result(30).status_code == 201


def test_one_rollout_of_a_release_is_open_for_a_model(field: Field) -> None:
    release = field.release()
    rollout = field.rollout(release, start=False)
    body = {"release_id": release, "device_model": DEVICE_MODEL}
    assert field.send("POST", "/rollouts", json=body).status_code == 409
    assert field.evaluate(rollout)["reasons"][0]["word"] == "not_running"
    assert field.steer(rollout, "start").json()["state"] == "running"
    field.steer(rollout, "abort")
    assert field.send("POST", "/rollouts", json=body).status_code == 201
    assert field.send("POST", "/rollouts", json={**body, "phases": [50, 10]}).status_code == 422


@pytest.mark.parametrize("word", ["expired", "key_not_trusted"])
def test_what_devices_are_refused_pauses_and_is_not_taken_up_again(field: Field, word: str) -> None:
    devices = field.devices(4)
    first = field.release("v1.1.0")
    other = field.rollout(first, start=False)
    release = field.release()
    rollout = field.rollout(release, phases=[50, 100], success_threshold=0.5, min_devices=1)
    for device in devices:
        field.update(rollout, device)
    bad = {
        "expired": "expires_at = now() - INTERVAL '1 second'",
        "key_not_trusted": "key_id = repeat('0', 16)",
    }
    field.execute(f"UPDATE releases SET {bad[word]}")
    decided = field.evaluate(rollout)
    assert (decided["action"], decided["state"]) == ("pause", "paused")
    assert [reason["word"] for reason in decided["reasons"]] == [word]
    assert field.alerts() == [("rollout_paused", False, 1)]
    for steer in (field.steer(rollout, "resume"), field.steer(other, "start")):
        assert steer.status_code == 409
        assert "v1." in steer.json()["detail"]
    field.steer(other, "abort")
    again = field.send("POST", "/rollouts", json={"release_id": first})
    assert again.status_code == 409
    assert "v1.1.0" in again.json()["detail"], "no rollout of it is open"


def test_what_is_withdrawn_has_its_open_rollouts_aborted(field: Field) -> None:
    [device] = field.devices(1)
    release = field.release()
    rollout = field.rollout(release)
    field.offer(rollout, device)
    assert asyncio.run(abort_all(field, release)) == 1
    assert field.show(rollout)["state"] == "aborted"
    assert field.states(rollout) == ["aborted"]


async def abort_all(field: Field, release: str) -> int:
    url = field.ota.settings.database_url.get_secret_value()
    async with await AsyncConnection.connect(url) as connection:
        trail = AuditTrail(AuditRepository(connection), Actor("a test", "system"))
        rollouts = Rollouts(RolloutRepository(connection), trail, datetime.now(UTC), list)
        return await rollouts.abort_all_of(UUID(release), "withdrawn")
