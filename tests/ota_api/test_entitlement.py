"""Which release a device gets, by the rules of ota_api/releases/entitlement.py."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.releases.entitlement import (
    Candidate,
    Denied,
    DeviceState,
    Entitled,
    Rollout,
    Shelf,
    decide_for_user,
    decide_latest,
    decide_version,
)
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, Release, Slot
from ota_api.rollouts.membership import bucket_of
from ota_api.rollouts.offers import Deployment
from zenthos_core.signing import ReleaseKey

NOW = 1_795_000_000.0
SPACE = UUID(int=7)
FARM, OTHER_FARM = UUID(int=1), UUID(int=2)
SLOT = Slot("esp32-s3", FIRMWARE_KINDS)
KEY = ReleaseKey("aa", "", ["firmware-bundle", "esp-image"], ["*"], int(NOW) + 1000)
DEVICE = DeviceState("field-1", "esp32-s3", FARM, ("soil",), firmware_version="v1.2.0")


def release(version: str, counter: int, **changes: Any) -> Release:
    fields: dict[str, Any] = {
        "id": uuid5(SPACE, f"release {version} {counter}"),
        "device_model": "esp32-s3",
        "kind": "firmware-bundle",
        "name": "sensor",
        "version": version,
        "object_key": "k",
        "sha256": "0" * 64,
        "size_bytes": 1,
        "manifest": b"{}",
        "signature": b"",
        "key_id": "aa",
        "release_counter": counter,
        "expires_at": datetime.fromtimestamp(NOW + 1000, UTC),
        "uploaded_at": datetime.fromtimestamp(NOW, UTC),
        "required": False,
        "rollout_percentage": 100,
        "release_notes": "",
    }
    return Release(**{**fields, **changes})


def rollout(name: str = "r", **changes: Any) -> Rollout:
    fields = {"id": uuid5(SPACE, name), "state": "running", "phase": 1, "percentage": 100.0}
    return Rollout(**{**fields, **changes})


def candidate(version: str, counter: int, *rollouts: Rollout, **changes: Any) -> Candidate:
    of_release = {n: changes.pop(n) for n in ("expires_at", "key_id", "kind") if n in changes}
    return Candidate(
        release(version, counter, **of_release),
        ("esp32-s3",),
        rollouts=rollouts or (rollout(f"{version} {counter}"),),
        **changes,
    )


def deployment(of: Candidate, state: str, reason: str | None = None) -> Deployment:
    return Deployment(9, of.rollouts[0].id, state, reason)


def latest(
    *candidates: Candidate,
    device: DeviceState = DEVICE,
    deployments: tuple[Deployment, ...] = (),
    keys: tuple[ReleaseKey, ...] = (KEY,),
    now: float = NOW,
) -> Entitled | Denied:
    held = {d.rollout_id: d for d in deployments}
    return decide_latest(device, SLOT, Shelf(candidates), held, keys, now)


def version_of(decided: Entitled | Denied) -> str:
    assert isinstance(decided, Entitled), decided
    return decided.release.version


def reason_of(decided: Entitled | Denied) -> str:
    assert isinstance(decided, Denied), decided
    return decided.reason


OLD = candidate("v1.2.0", 3)
NEW = candidate("v2.0.0", 5)
LAST = candidate("v3.0.0", 6)


def test_the_newest_counter_comes_first() -> None:
    assert version_of(latest(OLD, LAST, NEW)) == "v3.0.0"


def test_nothing_published() -> None:
    assert reason_of(latest()) == "nothing_published"


def test_rule_1_withdrawn() -> None:
    gone = candidate("v3.0.0", 6, withdrawn=True, withdrawal_reason="drains batteries")
    assert version_of(latest(NEW, gone)) == "v2.0.0"
    denied = latest(gone)
    assert reason_of(denied) == "withdrawn"
    assert "drains batteries" in denied.text  # type: ignore[union-attr]


def test_rule_2_expired() -> None:
    stale = candidate("v3.0.0", 6, expires_at=datetime.fromtimestamp(NOW, UTC))
    assert version_of(latest(NEW, stale)) == "v2.0.0"
    assert reason_of(latest(stale)) == "expired"


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": "bb"},
        {"expires": int(NOW)},
        {"kinds": ["model"]},
        {"kinds": ["check-in"]},
        {"device_models": ["esp32-cam"]},
    ],
)
def test_rule_3_key(changes: dict[str, Any]) -> None:
    key = msgspec.structs.replace(KEY, **changes)
    assert reason_of(latest(NEW, keys=(key,))) == "key_not_trusted"
    assert version_of(latest(NEW, keys=(key, KEY))) == "v2.0.0"


def test_rule_4_never_back() -> None:
    stopped = candidate("v3.0.0", 6, rollout("three", state="aborted"))
    running = msgspec.structs.replace(DEVICE, firmware_version="v3.0.0")
    assert version_of(latest(stopped, NEW)) == "v2.0.0"
    assert reason_of(latest(stopped, NEW, device=running)) == "rollout_aborted"


def test_rule_4_also_when_what_runs_was_withdrawn() -> None:
    gone = candidate("v3.0.0", 6, withdrawn=True)
    running = msgspec.structs.replace(DEVICE, firmware_version="v3.0.0")
    assert reason_of(latest(gone, NEW, device=running)) == "withdrawn"


def test_rule_4_version_issued_again() -> None:
    """v1.2.0 came back as 7: who runs it may have either; a deployment tells."""
    again = candidate("v1.2.0", 7, rollout("again", state="paused"))
    assert version_of(latest(OLD, NEW, again)) == "v2.0.0"
    proven = deployment(again, "success")
    assert latest(OLD, NEW, again, deployments=(proven,)) == Entitled(
        again, again.rollouts[0], proven
    )
    stopped = candidate("v1.2.0", 7, rollout("again", state="aborted"))
    assert reason_of(latest(OLD, NEW, stopped, deployments=(proven,))) == "rollout_aborted"


def test_rule_5_stepping_stone() -> None:
    leap = candidate("v2.0.0", 5, min_firmware="v1.4.0")
    stone = candidate("v1.4.0", 4)
    assert version_of(latest(OLD, stone, leap)) == "v1.4.0"
    arrived = msgspec.structs.replace(DEVICE, firmware_version="v1.4.0")
    assert version_of(latest(OLD, stone, leap, device=arrived)) == "v2.0.0"


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ("v1.3.9", "needs firmware v1.4.0 first; the device runs v1.3.9"),
        (None, "has not reported"),
        ("weird", "reports weird"),
    ],
)
def test_rule_5_says_what_is_needed(installed: str | None, told: str) -> None:
    device = msgspec.structs.replace(DEVICE, firmware_version=installed)
    denied = latest(candidate("v2.0.0", 5, min_firmware="v1.4.0"), device=device)
    assert reason_of(denied) == "needs_firmware"
    assert told in denied.text  # type: ignore[union-attr]


def test_rule_5_compares_numbers() -> None:
    device = msgspec.structs.replace(DEVICE, firmware_version="v1.10.0")
    assert version_of(latest(candidate("v2.0.0", 5, min_firmware="v1.9.0"), device=device))


def test_rule_6_no_rollout() -> None:
    alone = Candidate(release("v2.0.0", 5), ("esp32-s3",))
    assert reason_of(latest(alone)) == "no_rollout"
    assert version_of(latest(alone, OLD)) == "v1.2.0"


STATES = ("downloading", "installing", "rebooting", "success", "already-installed")


@pytest.mark.parametrize(
    ("state", "reason"), [("created", "rollout_not_started"), ("aborted", "rollout_aborted")]
)
@pytest.mark.parametrize("held", [None, *STATES])
def test_rule_6a_nobody(state: str, reason: str, held: str | None) -> None:
    stopped = candidate("v2.0.0", 5, rollout(state=state))
    deployments = (deployment(stopped, held),) if held else ()
    assert reason_of(latest(stopped, deployments=deployments)) == reason


@pytest.mark.parametrize("state", ["running", "finished", "paused"])
@pytest.mark.parametrize(
    ("held", "why"), [("failure", "hash"), ("timed_out", None), ("aborted", "user")]
)
def test_rule_6b_not_again(state: str, held: str, why: str | None) -> None:
    tried = candidate("v2.0.0", 5, rollout(state=state))
    assert reason_of(latest(tried, deployments=(deployment(tried, held, why),))) == "failed_before"
    assert version_of(latest(OLD, tried, deployments=(deployment(tried, held, why),))) == "v1.2.0"


def test_rule_6b_another_rollout_may_try_again() -> None:
    second, first = rollout("second"), rollout("first", state="finished")
    tried = candidate("v2.0.0", 5, second, first)
    failed = Deployment(9, first.id, "failure")
    assert latest(tried, deployments=(failed,)) == Entitled(tried, second, None)


@pytest.mark.parametrize("state", ["paused", "aborted"])
def test_rule_6_what_has_stopped_is_left_to_no_older_rollout(state: str) -> None:
    first = rollout("first", state="finished")
    stopped = candidate("v2.0.0", 5, rollout("second", state=state), first)
    assert reason_of(latest(stopped)) == f"rollout_{state}"
    elsewhere = candidate("v2.0.0", 5, rollout("second", state=state, tag="frost"), first)
    assert latest(elsewhere) == Entitled(elsewhere, first, None)
    waiting = candidate("v2.0.0", 5, rollout("second", state="created"), first)
    assert latest(waiting) == Entitled(waiting, first, None)
    failed = candidate("v2.0.0", 5, rollout("second"), first)
    assert reason_of(latest(failed, deployments=(deployment(failed, "failure"),))) == (
        "failed_before"
    )


def test_rule_6c_goes_on_by_an_older_rollout_than_one_that_has_stopped() -> None:
    first = rollout("first", state="finished")
    both = candidate("v2.0.0", 5, rollout("second", state="paused"), first)
    begun = Deployment(9, first.id, "downloading")
    assert latest(both, deployments=(begun,)) == Entitled(both, first, begun)
    waiting = Deployment(9, first.id, "pending")
    assert reason_of(latest(both, deployments=(waiting,))) == "rollout_paused"


def test_rule_6_what_never_began_stops_nothing() -> None:
    first = rollout("first", state="finished")
    both = candidate("v2.0.0", 5, rollout("second", state="aborted", begun=False), first)
    assert latest(both) == Entitled(both, first, None)


def test_rule_6_what_has_stopped_has_so_for_later_phases_too() -> None:
    first = rollout("first", state="finished")
    both = candidate("v2.0.0", 5, rollout("second", state="paused", percentage=0.0), first)
    assert reason_of(latest(both)) == "rollout_paused"


def test_rule_4_never_back_to_another_kind() -> None:
    image = candidate("v1.0.0", 1, kind="esp-image")
    slot = Slot("esp32-s3", ("esp-image",))
    shelf = Shelf([image, OLD, NEW])
    assert reason_of(decide_latest(DEVICE, slot, shelf, {}, (KEY,), NOW)) == "older_than_running"
    assert version_of(decide_for_user(shelf, slot, None, NOW)) == "v1.0.0"
    assert reason_of(decide_version(DEVICE, slot, shelf, "v2.0.0", {}, (KEY,), NOW)) == (
        "nothing_published"
    )


def test_rule_6b_superseded_was_not_tried() -> None:
    held = deployment(NEW, "aborted", "superseded")
    assert latest(NEW, deployments=(held,)) == Entitled(NEW, NEW.rollouts[0], held)


@pytest.mark.parametrize("held", STATES)
@pytest.mark.parametrize("state", ["paused", "running", "finished"])
def test_rule_6c_goes_on(state: str, held: str) -> None:
    """Even when the device is not a member any more."""
    begun = candidate("v2.0.0", 5, rollout(state=state, percentage=0.0, tag="moved"))
    assert version_of(latest(begun, deployments=(deployment(begun, held),))) == "v2.0.0"


def test_rule_6d_paused() -> None:
    paused = candidate("v2.0.0", 5, rollout(state="paused", paused_reason="12 % failed"))
    denied = latest(paused)
    assert reason_of(denied) == "rollout_paused"
    assert "12 % failed" in denied.text  # type: ignore[union-attr]
    assert reason_of(latest(paused, deployments=(deployment(paused, "pending"),))) == (
        "rollout_paused"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"farm_id": OTHER_FARM}, "other_farm"),
        ({"tag": "frost"}, "other_tag"),
        ({"percentage": 0.0}, "not_in_phase"),
    ],
)
def test_rule_6e_members(changes: dict[str, Any], reason: str) -> None:
    assert reason_of(latest(candidate("v2.0.0", 5, rollout(**changes)))) == reason


def test_rule_6e_farm_tag_and_bucket_match() -> None:
    of = rollout(farm_id=FARM, tag="soil")
    bucket = bucket_of(of.id, DEVICE.device_id)
    share = msgspec.structs.replace(of, percentage=(bucket + 1) / 100)
    assert version_of(latest(candidate("v2.0.0", 5, share)))
    below = msgspec.structs.replace(of, percentage=bucket / 100)
    assert reason_of(latest(candidate("v2.0.0", 5, below))) == "not_in_phase"


def test_rule_6e_control_waits_for_the_end() -> None:
    of = rollout(control_percentage=50.0)
    held_back = next(
        d for n in range(99) if bucket_of(of.id, (d := f"field-{n}")) >= 10_000 - 50 * 100
    )
    device = msgspec.structs.replace(DEVICE, device_id=held_back)
    assert reason_of(latest(candidate("v2.0.0", 5, of), device=device)) == "control"
    done = msgspec.structs.replace(of, state="finished")
    assert version_of(latest(candidate("v2.0.0", 5, done), device=device))


def test_one_version_by_the_same_rules() -> None:
    def ask(version: str, *candidates: Candidate) -> Entitled | Denied:
        return decide_version(DEVICE, SLOT, Shelf(candidates), version, {}, (KEY,), NOW)

    assert version_of(ask("v2.0.0", NEW, LAST)) == "v2.0.0"
    assert reason_of(ask("v9.0.0", NEW)) == "nothing_published"
    assert reason_of(ask("v2.0.0", candidate("v2.0.0", 5, withdrawn=True))) == "withdrawn"
    older = candidate("v1.0.0", 1)
    assert reason_of(ask("v1.0.0", older, OLD)) == "older_than_running"
    expired = datetime.fromtimestamp(1, UTC)
    running = candidate("v1.2.0", 3, rollout(state="aborted"), expires_at=expired)
    assert ask("v1.2.0", running) == Entitled(running)


def test_users_get_the_newest_without_a_rollout() -> None:
    gone = candidate("v3.0.0", 6, withdrawn=True)
    alone = Candidate(release("v2.0.0", 5), ("esp32-s3",))
    assert decide_for_user(Shelf([OLD, alone, gone]), SLOT, None, NOW) == Entitled(alone)
    assert decide_for_user(Shelf([gone]), SLOT, "v3.0.0", NOW) == Entitled(gone)
    assert reason_of(decide_for_user(Shelf([gone]), SLOT, None, NOW)) == "nothing_published"


def test_models_run_by_their_own_version() -> None:
    device = msgspec.structs.replace(DEVICE, model_version="m-20261123-0a1b2c3")
    assert device.running(Slot("esp32-s3", MODEL_KINDS, "irrigation")) == "m-20261123-0a1b2c3"
    assert device.running(SLOT) == "v1.2.0"


# Properties


@st.composite
def shelves(draw: st.DrawFn) -> list[Candidate]:
    counters = draw(st.lists(st.integers(1, 12), unique=True, max_size=6))
    return [draw(candidates(counter)) for counter in counters]


def test_rule_5_a_demand_that_is_no_version() -> None:
    for wanted in ("1.4.0", "latest", ""):
        denied = latest(candidate("v2.0.0", 5, min_firmware=wanted))
        assert isinstance(denied, Denied)
        assert (denied.reason, "no version" in denied.text) == ("needs_firmware", True)


@st.composite
def candidates(draw: st.DrawFn, counter: int) -> Candidate:
    version = f"v1.{draw(st.integers(0, 5))}.0"
    states = st.sampled_from(["created", "running", "paused", "finished", "aborted"])
    of = rollout(
        f"{counter}",
        state=draw(states),
        percentage=draw(st.floats(0, 100)),
        control_percentage=draw(st.sampled_from([0.0, 10.0, 50.0])),
        farm_id=draw(st.sampled_from([None, FARM, OTHER_FARM])),
    )
    return candidate(
        version,
        counter,
        of,
        withdrawn=draw(st.booleans()),
        min_firmware=draw(st.sampled_from([None, "v1.1.0", "v1.4.0"])),
        key_id=draw(st.sampled_from(["aa", "aa", "bb"])),
        expires_at=datetime.fromtimestamp(NOW + draw(st.sampled_from([-1, 0, 1, 9])), UTC),
    )


devices = st.builds(
    DeviceState,
    device_id=st.sampled_from([f"field-{n}" for n in range(20)]),
    device_model=st.just("esp32-s3"),
    farm_id=st.just(FARM),
    firmware_version=st.sampled_from([None, *(f"v1.{n}.0" for n in range(6))]),
)
states = st.sampled_from(["pending", *STATES, "failure", "timed_out", "aborted"])


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Candidate], DeviceState, tuple[Deployment, ...]]:
    shelf = draw(shelves())
    held = tuple(
        deployment(c, draw(states), draw(st.sampled_from([None, "superseded"])))
        for c in shelf
        if draw(st.booleans())
    )
    return shelf, draw(devices), held


Situation = tuple[list[Candidate], DeviceState, tuple[Deployment, ...]]


@given(situations())
def test_nothing_withdrawn_expired_or_untrusted_ever(situation: Situation) -> None:
    shelf, device, held = situation
    decided = latest(*shelf, device=device, deployments=held)
    if isinstance(decided, Entitled):
        assert not decided.candidate.withdrawn
        assert decided.release.expires_at.timestamp() > NOW
        assert decided.release.key_id == "aa"
        assert decided.rollout is not None
        assert decided.rollout.state in {"running", "paused", "finished"}


@given(situations())
def test_never_a_lower_counter_than_what_runs(situation: Situation) -> None:
    shelf, device, held = situation
    decided = latest(*shelf, device=device, deployments=held)
    runs = [
        c.release.release_counter for c in shelf if c.release.version == device.firmware_version
    ]
    if isinstance(decided, Entitled) and runs:
        assert decided.release.release_counter >= min(runs)


@given(situations(), st.floats(0, 100))
def test_a_higher_percentage_never_takes_a_release_away(
    situation: Situation, percentage: float
) -> None:
    shelf, device, held = situation
    before = latest(*shelf, device=device, deployments=held)
    raised = [
        msgspec.structs.replace(
            c,
            rollouts=tuple(
                msgspec.structs.replace(r, percentage=max(r.percentage, percentage))
                for r in c.rollouts
            ),
        )
        for c in shelf
    ]
    after = latest(*raised, device=device, deployments=held)
    if isinstance(before, Entitled):
        assert isinstance(after, Entitled)
        assert after.release.release_counter >= before.release.release_counter


@given(situations())
def test_every_refusal_has_a_word_and_a_text(situation: Situation) -> None:
    shelf, device, held = situation
    decided = latest(*shelf, device=device, deployments=held)
    if isinstance(decided, Denied):
        assert decided.reason.replace("_", "").isalpha()
        assert decided.text
