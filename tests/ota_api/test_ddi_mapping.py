"""The rules of ota_api.ddi.mapping."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ota_api.ddi.mapping import (
    MAX_REASON,
    Action,
    Told,
    change_attributes,
    claim_of,
    errors_in,
    is_over,
    links,
    polling_sleep,
    repeats,
)
from ota_api.ddi.schemas import ConfigData, Feedback
from ota_api.rollouts.transitions import Claim, State

MODEL = "linux-gateway"
NOW = datetime(2026, 11, 28, tzinfo=UTC)
PENDING = Action(
    id=7,
    rollout_id=UUID(int=1),
    state=State.PENDING,
    offered_at=NOW,
    confirmed_at=None,
    device_model=MODEL,
    kind="firmware-bundle",
    name="gateway",
    version="v1.2.0",
    sha256="ab" * 32,
    sha1="cd" * 20,
    md5="ef" * 16,
    size_bytes=10,
    required=False,
    object_key="linux-gateway/v1.2.0.zip",
    begun=False,
    cancel_answered=False,
    cancel_rejected=False,
)
TOLD = Told(MODEL, {}, sends_telemetry=False)


def at(state: str, **changes: Any) -> Action:
    return replace(PENDING, state=State(state), **changes)


def said(execution: str, finished: str = "none", *details: str) -> Feedback:
    status = {"execution": execution, "result": {"finished": finished}, "details": list(details)}
    return Feedback.model_validate({"status": status})


def test_rule_1_a_cancellation_comes_before_what_is_offered() -> None:
    begun = at("aborted", id=5, begun=True)
    assert set(links([PENDING, begun], 7, TOLD)) == {"cancelAction"}
    assert links([PENDING, begun], 7, TOLD)["cancelAction"] is begun
    for over in (replace(begun, cancel_answered=True), replace(begun, begun=False)):
        assert links([PENDING, over], 7, TOLD) == {"deploymentBase": PENDING}


def test_rule_1_nothing_that_is_not_offered_or_closed_is_linked() -> None:
    assert links([PENDING], None, TOLD) == {}
    closed = at("rebooting", confirmed_at=NOW)
    assert "deploymentBase" not in links([closed], 7, TOLD)
    assert links([closed], 7, TOLD)["installedBase"] is closed
    again = at("pending", confirmed_at=NOW)  # superseded after it was closed, offered once more
    assert "deploymentBase" in links([again], 7, TOLD)
    assert links([at("rebooting")], 7, TOLD).keys() == {"deploymentBase"}


@pytest.mark.parametrize(
    ("state", "same", "other"),
    [
        ("success", ("closed", "success"), ("closed", "failure")),
        ("already-installed", ("closed", "none"), ("proceeding", "none")),
        ("failure", ("closed", "failure"), ("closed", "success")),
        ("failure", ("rejected", "none"), ("canceled", "none")),
        ("aborted", ("canceled", "none"), ("proceeding", "none")),
    ],
)
def test_rule_2_an_action_that_is_over_stays_as_it_is(
    state: str, same: tuple[str, str], other: tuple[str, str]
) -> None:
    action = at(state)
    assert is_over(action, said(*same))
    assert repeats(action.state, said(*same))
    assert is_over(action, said(*other))
    assert not repeats(action.state, said(*other))


def test_rule_2_what_was_taken_back_may_still_be_closed() -> None:
    for finished in ("success", "failure"):
        assert not is_over(at("aborted"), said("closed", finished))
    stubborn = at("aborted", cancel_answered=True, cancel_rejected=True)
    assert not is_over(stubborn, said("proceeding"))
    assert claim_of(stubborn, said("resumed")) is None
    assert not is_over(at("timed_out"), said("proceeding"))
    assert claim_of(at("timed_out"), said("proceeding")) is None


@pytest.mark.parametrize("finished", ["success", "none"])
def test_rule_3_closed_says_that_the_release_runs(finished: str) -> None:
    booted = Claim(State.SUCCESS, version="v1.2.0", sha256="ab" * 32)
    assert claim_of(at("installing"), said("closed", finished)) == booted
    assert claim_of(at("rebooting", confirmed_at=NOW), said("closed", finished)) is None


def test_rule_4_refusals() -> None:
    rejected = claim_of(PENDING, said("rejected", "none", "not now"))
    assert rejected == Claim(State.FAILURE, "download", "not now")
    canceled = claim_of(at("installing"), said("canceled", "none", "the user said no"))
    assert canceled == Claim(State.ABORTED, "install", "the user said no")


@pytest.mark.parametrize(
    ("state", "execution", "following"),
    [
        ("pending", "download", "downloading"),
        ("pending", "downloaded", "downloading"),
        ("pending", "proceeding", "downloading"),
        ("downloading", "proceeding", "installing"),
        ("downloading", "downloaded", "downloading"),
        ("installing", "proceeding", "installing"),
        ("installing", "download", "installing"),
        ("pending", "scheduled", "pending"),
        ("installing", "resumed", "installing"),
        ("rebooting", "proceeding", "rebooting"),
    ],
)
def test_rule_5_progress_leads_forward(state: str, execution: str, following: str) -> None:
    assert claim_of(at(state), said(execution)) == Claim(State(following))


def test_rule_5_progress_after_the_closing_takes_nothing_back() -> None:
    closed = at("rebooting", confirmed_at=NOW)
    assert claim_of(closed, said("proceeding")) is None
    assert claim_of(closed, said("closed", "failure")) is not None


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        ("pending", "download"),
        ("downloading", "download"),
        ("installing", "install"),
        ("rebooting", "boot"),
        ("timed_out", "unknown"),
    ],
)
def test_rule_6_a_failure_names_its_stage(state: str, stage: str) -> None:
    claim = claim_of(at(state), said("closed", "failure", "no space"))
    assert claim == Claim(State.FAILURE, stage, "no space")


def test_rule_6_a_reason_is_one_line_of_bounded_length() -> None:
    feedback = said("closed", "failure", "first\n\tline\x00", " ", "second")
    assert claim_of(PENDING, feedback, "ERROR before") == Claim(
        State.FAILURE, "download", "ERROR before; first line; second"
    )
    long = claim_of(PENDING, said("closed", "failure", "x" * 9_000))
    assert long is not None
    assert long.reason == "x" * MAX_REASON
    silent = claim_of(PENDING, said("closed", "failure"))
    assert silent is not None
    assert silent.reason == "the device reported closed without details"


def test_rule_6_errors_on_the_way_are_kept() -> None:
    feedback = said("proceeding", "none", "fine", "ERROR core : 635 : HASH mismatch", "waiting")
    assert errors_in(feedback.status) == "ERROR core : 635 : HASH mismatch"
    assert errors_in(said("proceeding", "none", "fine").status) is None


def test_rule_7_a_version_is_asked_for_until_it_is_told() -> None:
    closed = at("rebooting", confirmed_at=NOW)
    other = Told(MODEL, {"firmware_version": "v1.1.0"}, sends_telemetry=False)
    assert not replace(other, told_at=NOW).proves(closed)
    assert "configData" in links([closed], None, other)
    same = Told(MODEL, {"firmware_version": "v1.2.0"}, sends_telemetry=False, told_at=NOW)
    assert same.proves(closed)
    before = replace(same, told_at=NOW - timedelta(seconds=1))
    assert not before.proves(closed), "it may have run that before the offer"
    assert "configData" in links([closed], None, before)
    assert "configData" not in links([closed], None, same)
    sensor = replace(same, sends_telemetry=True)
    assert not sensor.proves(closed)
    assert "configData" not in links([closed], None, sensor)
    assert "configData" in links([], None, Told(MODEL, None, sends_telemetry=True))


def test_attributes_change_by_their_mode() -> None:
    known = {"a": "1", "b": "2"}
    modes = {
        None: {"a": "1", "b": "3"},
        "merge": {"a": "1", "b": "3"},
        "replace": {"b": "3"},
        "remove": {"a": "1"},
    }
    for mode, changed in modes.items():
        sent = ConfigData.model_validate({"mode": mode, "data": {"b": "3"}})
        assert change_attributes(known, sent) == changed


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"070701", "gateway-v1.2.0.swu"),
        (b"070702", "gateway-v1.2.0.swu"),
        (b"hsqs\x01\x00", "gateway-v1.2.0.raucb"),
        (b"PK\x03\x04", "gateway-v1.2.0.zip"),
        (b"\x3d\xb8\xf3\x96", "gateway-v1.2.0.bin"),
    ],
)
def test_a_file_is_named_after_its_content(head: bytes, name: str) -> None:
    assert PENDING.filename(head) == name


def test_the_handling_and_the_link_follow_the_release() -> None:
    required = replace(PENDING, required=True)
    assert (PENDING.handling, required.handling) == ("attempt", "forced")
    assert PENDING.fingerprint != required.fingerprint
    assert polling_sleep(86_399) == "23:59:59"
    assert polling_sleep(61) == "00:01:01"
