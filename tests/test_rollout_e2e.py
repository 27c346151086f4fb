"""A good release reaches every device; a bad one stops by itself and is taken back."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ota_api.rollouts.membership import bucket_of
from tests.ota_api.conftest import DEVICE_MODEL
from tests.ota_api.releases import bundle
from tests.rollout_world import GOOD, World, running_world
from tests.servers import MosquittoServer
from zenthos_cli.updating import Faults
from zenthos_core.settings import Settings

pytestmark = pytest.mark.e2e

DEVICES = 40
ROUNDS = 12
PHASES = [10, 50, 100]
BAD = {**GOOD, "temperature": 150.0}


@pytest.fixture
def world(settings: Settings, mosquitto: MosquittoServer, tmp_path: Path) -> Iterator[World]:
    """Forty devices with v1.0.0 on a platform of this test's own."""
    with running_world(settings, mosquitto, tmp_path) as running:
        publish(running, "v1.0.0", 1)
        running.populate(DEVICES, tmp_path / "devices", "v1.0.0", binary_of("v1.0.0"))
        yield running


def binary_of(version: str) -> bytes:
    """Its bundle."""
    return bundle(version.encode() * 2000)


def publish(world: World, version: str, counter: int, **changes: Any) -> str:
    """A release that is offered to nobody yet."""
    release = world.ota.signer.firmware(
        binary_of(version), version=version, release_counter=counter
    )
    answer = world.ota.publish(
        {**release, "rollout_percentage": 0, **changes}, path="/firmware/publish"
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def begin(world: World, release: str) -> str:
    """A rollout that goes on, with three devices at least in its first phase."""
    body = {
        "release_id": release,
        "device_model": DEVICE_MODEL,
        "phases": PHASES,
        "success_threshold": 0.9,
        "error_threshold": 0.1,
        "min_devices": 3,
        "timeout_s": 3600,
        "start": False,
    }
    while True:
        rollout = str(world.send("POST", "/rollouts", json=body)["id"])
        if 3 <= len(members(world, rollout, PHASES[0])) <= DEVICES // 4:
            world.send("POST", f"/rollouts/{rollout}/start")
            return rollout
        world.send("POST", f"/rollouts/{rollout}/abort", json={})


def members(world: World, rollout: str, percentage: float) -> set[str]:
    """The devices of a phase, as documented."""
    buckets = {name: bucket_of(UUID(rollout), name) for name in world.devices}
    return {name for name, bucket in buckets.items() if bucket < 100 * percentage}


def state(world: World, rollout: str) -> str:
    """Of the rollout, as users see it."""
    return str(world.send("GET", f"/rollouts/{rollout}")["state"])


def audited(world: World, rollout: str) -> list[dict[str, Any]]:
    """What the audit log says of a rollout, the oldest first."""
    page = world.send("GET", "/audit", params={"subject": f"rollout {rollout}"})
    return list(reversed(page["items"]))


def test_a_good_release_reaches_every_device_in_phases(world: World) -> None:
    rollout = begin(world, publish(world, "v1.1.0", 2))
    reached: list[set[str]] = []
    decisions: list[dict[str, Any]] = []
    while state(world, rollout) == "running":
        assert len(reached) < ROUNDS, decisions
        world.check_in()
        reached.append(set(world.states(rollout)))
        assert world.tick() == [], "nothing is proven before the readings"
        world.report({})
        decisions += world.tick()
    assert state(world, rollout) == "finished"
    assert reached == [members(world, rollout, percentage) for percentage in PHASES]
    assert set(world.versions().values()) == {"v1.1.0"}
    assert set(world.states(rollout).values()) == {"success"}
    assert [decision["decision"] for decision in decisions] == ["advance", "advance", "finish"]
    assert all("image/png" in decision["progress"] for decision in decisions)
    told = [entry for entry in audited(world, rollout) if entry["actor"] == "svc-lineage"]
    assert [entry["action"] for entry in told] == [
        "rollout.advance",
        "rollout.advance",
        "rollout.finish",
    ]
    assert [entry["after"]["evidence"]["counts"]["succeeded"] for entry in told] == [
        len(phase) for phase in reached
    ]


def test_a_release_that_does_not_boot_stops_in_its_first_phase(world: World) -> None:
    rollout = begin(world, publish(world, "v1.1.0", 2))
    world.fail(Faults(fails_at="reboot"))
    first = members(world, rollout, PHASES[0])
    outcome = world.check_in()
    failed = {name for name, done in outcome.items() if done == "failure"}
    assert failed <= first
    assert len(failed) >= 3
    world.report({})
    [decision] = world.tick()
    assert (decision["decision"], decision["by"]) == ("pause", "ota-api")
    assert state(world, rollout) == "paused"
    world.fail(Faults())
    assert set(world.check_in().values()) == {"idle"}
    assert set(world.states(rollout)) == failed
    world.report({})
    assert set(world.versions().values()) == {"v1.0.0"}
    [entry] = [one for one in audited(world, rollout) if one["action"] == "rollout.pause"]
    assert entry["after"]["evidence"]["counts"]["phase_failed"] >= 3
    steps = world.send("GET", f"/devices/{min(failed)}/deployments")["items"][0]["events"]
    assert [(step["state"], step["stage"]) for step in steps] == [
        ("pending", None),
        ("downloading", None),
        ("installing", None),
        ("rebooting", None),
        ("failure", "reboot"),
    ]


@pytest.mark.parametrize(
    ("version", "way"),
    [
        pytest.param("v1.0.0", {"reissue": True, "binary_data": None}, id="a reissue"),
        pytest.param("v1.2.1", {}, id="a newer release"),
    ],
)
def test_bad_readings_stop_a_release_and_its_devices_are_taken_back(
    world: World, version: str, way: dict[str, Any]
) -> None:
    bad = begin(world, publish(world, "v1.2.0", 2))
    first = members(world, bad, PHASES[0])
    assert {name for name, done in world.check_in().items() if done == "success"} == first
    world.report({"v1.2.0": BAD})
    [decision] = world.tick()
    assert (decision["decision"], decision["by"]) == ("pause", "svc-lineage")
    assert "range_violation_rate" in decision["reasons"]
    assert state(world, bad) == "paused"
    assert set(world.check_in().values()) == {"idle"}
    assert set(world.states(bad)) == first
    entry = audited(world, bad)[-1]
    evidence = entry["after"]["evidence"]["quality"]
    # devices tell time to the second: a good reading of the second of the boot may be among them
    assert evidence["updated"]["range_violation_rate"] >= 0.5
    assert evidence["control"]["range_violation_rate"] == 0
    assert evidence["control"]["devices"] == DEVICES - len(first)

    reissue = publish(world, version, 3, **way)
    path = f"/rollouts/{bad}/rollback"
    back = str(world.send("POST", path, json={"release_id": reissue})["id"])
    assert state(world, bad) == "aborted"
    outcome = world.check_in()
    taken = {name for name, done in outcome.items() if done == "success"}
    assert taken == (first if way else set(world.devices))
    world.report({})
    assert [one["decision"] for one in world.tick()] == ["finish"]
    assert set(world.versions().values()) == {version}
    assert {world.states(back)[name] for name in first} == {"success"}
    actions = {entry["action"] for entry in audited(world, bad)}
    assert {"rollout.pause", "rollout.abort", "rollout.rollback"} <= actions


def test_devices_that_are_kept_from_asking_are_told_of_until_they_ask(world: World) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=4)
    assert world.alerts("update_silent") == set()
    world.execute("UPDATE devices SET status = 'online', created_at = %s", long_ago)
    assert world.alerts("update_silent") == set(world.devices)
    asked = set(sorted(world.devices)[:30])
    world.check_in(asked)
    deadline = time.monotonic() + 30
    while world.alerts("update_silent") != set(world.devices) - asked:
        assert time.monotonic() < deadline, "that they asked is not known yet"
        time.sleep(0.5)
