"""What a report makes of a deployment; tests bear the numbers of the module's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.rollouts.transitions import FINAL, OPEN, Claim, Outcome, State, apply

VERSION, SHA256 = "v1.2.0", "ab" * 32
PROVEN = {"version": VERSION, "sha256": SHA256}
REPORTED = [state for state in State if state is not State.TIMED_OUT]


def told(current: State, state: State, **claim: str) -> Outcome | None:
    return apply(current, Claim(state, **claim), version=VERSION, sha256=SHA256)


@pytest.mark.parametrize("current", OPEN)
@pytest.mark.parametrize("state", OPEN)
def test_rule_1_at_work_a_device_goes_from_any_to_any(current: State, state: State) -> None:
    assert told(current, state) == Outcome(state)


@given(st.sampled_from(FINAL), st.sampled_from(REPORTED), st.booleans())
def test_rule_2_final_states_stay(current: State, state: State, proven: bool) -> None:
    assert told(current, state, **(PROVEN if proven else {})) is None


@pytest.mark.parametrize("current", [State.ABORTED, State.TIMED_OUT])
def test_rule_3_an_outcome_is_heard_all_the_same(current: State) -> None:
    assert told(current, State.FAILURE, stage="install") == Outcome(State.FAILURE, "install")
    assert told(current, State.SUCCESS, **PROVEN) == Outcome(State.REBOOTING, confirmed=True)


def test_rule_3_progress_after_an_abort_is_not() -> None:
    assert told(State.ABORTED, State.INSTALLING) is None
    assert told(State.TIMED_OUT, State.INSTALLING) == Outcome(State.INSTALLING)


def test_rule_4_a_failure_names_its_stage() -> None:
    assert told(State.PENDING, State.FAILURE) == Outcome(State.FAILURE, "unknown")
    assert told(State.PENDING, State.FAILURE, stage="verify", reason="wrong_sha256") == Outcome(
        State.FAILURE, "verify", "wrong_sha256"
    )


@pytest.mark.parametrize("state", [State.SUCCESS, State.ALREADY_INSTALLED])
@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ({}, "version_mismatch"),
        ({"version": "v1.1.0", "sha256": SHA256}, "version_mismatch"),
        ({"version": VERSION}, "hash_mismatch"),
        ({"version": VERSION, "sha256": "cd" * 32}, "hash_mismatch"),
    ],
)
def test_rule_5_another_version_or_hash_is_a_failure(
    state: State, claim: dict[str, str], reason: str
) -> None:
    assert told(State.REBOOTING, state, **claim) == Outcome(State.FAILURE, "confirm", reason)


def test_rule_6_a_confirmed_boot_waits_for_its_proof() -> None:
    assert told(State.REBOOTING, State.SUCCESS, **PROVEN) == Outcome(
        State.REBOOTING, confirmed=True
    )
    assert told(State.PENDING, State.ALREADY_INSTALLED, **PROVEN) == Outcome(
        State.ALREADY_INSTALLED
    )
