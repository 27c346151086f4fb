"""When a rollout goes on or stops; tests bear the numbers of the policy's rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.rollouts.policy import (
    MAX_EVIDENCE_AGE_S,
    MIN_READINGS,
    Action,
    Cohort,
    Counts,
    Decision,
    Plan,
    Quality,
    Reason,
    decide,
)
from ota_api.rollouts.terms import Terms
from zenthos_core.signing import ReleaseKey

NOW = 1_764_300_000.0
PLAN = Plan(
    running=True,
    phase=1,
    phases=3,
    success_threshold=0.9,
    error_threshold=0.1,
    min_devices=10,
    control_percentage=0,
    timeout_s=86_400,
    phase_started_at=NOW - 3600,
)
GOOD = Counts(members=100, answering=100, succeeded=95, phase_succeeded=95, phase_failed=5)
COHORT = Cohort(50, 5_000, 0.01, 0.001, 0.01, 0.9)


def judge(counts: Counts, quality: Quality | None = None, plan: Plan = PLAN) -> Decision:
    return decide(plan, counts, quality, now=NOW)


def words(decision: Decision) -> list[str]:
    return [reason.word for reason in decision.reasons]


def measured(**worse: float) -> Quality:
    return Quality(NOW - 60, 3600, replace(COHORT, **worse), COHORT)


def test_rule_1_only_a_running_one_is_decided_on() -> None:
    failing = replace(GOOD, phase_failed=90)
    for counts in (GOOD, failing):
        assert judge(counts, plan=replace(PLAN, running=False)).action is Action.HOLD


def test_rule_2_a_clock_set_back_holds() -> None:
    decision = judge(replace(GOOD, phase_failed=90), plan=replace(PLAN, phase_started_at=NOW + 1))
    assert decision.action is Action.HOLD
    assert words(decision) == ["clock"]


def test_rule_3_what_devices_are_refused_pauses() -> None:
    why = Reason("expired", "v1.2.0 expired")
    assert judge(GOOD, plan=replace(PLAN, refused=why)) == Decision(Action.PAUSE, [why])
    assert judge(GOOD, plan=replace(PLAN, refused=why, running=False)).action is Action.HOLD


def test_rule_3_why_devices_are_refused() -> None:
    now = datetime.fromtimestamp(NOW, UTC)
    key = ReleaseKey("k", "", ["firmware-bundle"], ["esp32-s3"], expires=int(NOW) + 1)
    later, models = now + timedelta(seconds=1), ["esp32-s3"]
    good = Terms("firmware-bundle", "sensor", "v1.2.0", 7, "k", later, False, models)

    def why(terms: Terms, *keys: ReleaseKey) -> str | None:
        refused = terms.refused(keys, now)
        return refused and refused.word

    assert why(good, key) is None
    assert why(replace(good, withdrawn=True), key) == "withdrawn"
    assert why(replace(good, expires_at=now), key) == "expired"
    assert why(replace(good, device_models=["esp32-cam"]), key) == "key_not_trusted"
    assert why(good, msgspec.structs.replace(key, expires=int(NOW))) == "key_not_trusted"
    assert why(good) == "key_not_trusted"
    assert good.refused(None, now) is None, "which keys are trusted is not known"


@pytest.mark.parametrize(
    ("failed", "succeeded", "answering", "action"),
    [
        (1, 9, 100, Action.HOLD),  # the threshold itself is let pass
        (2, 8, 100, Action.PAUSE),
        (9, 0, 100, Action.HOLD),  # nine of a hundred have concluded, fewer than min_devices
        (10, 0, 100, Action.PAUSE),
        (3, 0, 3, Action.PAUSE),  # all there are
        (0, 0, 100, Action.HOLD),
    ],
)
def test_rule_4_failures_pause(failed: int, succeeded: int, answering: int, action: Action) -> None:
    counts = Counts(answering, answering, succeeded, succeeded, failed)
    assert judge(counts).action is action


@pytest.mark.parametrize(
    ("rate", "just_right", "too_much"),
    [
        ("gap_rate", 0.10, 0.12),
        ("range_violation_rate", 0.05, 0.06),
        ("battery_drop_v_per_day", 0.05, 0.07),
        ("inference_confidence", 0.76, 0.74),
    ],
)
def test_rule_5_worse_data_pauses(rate: str, just_right: float, too_much: float) -> None:
    assert judge(GOOD, measured(**{rate: just_right})).action is Action.ADVANCE
    decision = judge(GOOD, measured(**{rate: too_much}))
    assert decision.action is Action.PAUSE
    assert words(decision) == [rate]


def test_rule_5_too_little_data_tells_nothing() -> None:
    bad = measured(gap_rate=0.9)
    for few in (
        replace(bad, updated=replace(bad.updated, readings=MIN_READINGS - 1)),
        replace(bad, control=replace(bad.control, readings=MIN_READINGS - 1)),
        replace(bad, control=Cohort(0, 0)),
        replace(bad, updated=replace(bad.updated, gap_rate=None)),
    ):
        assert judge(GOOD, few).action is Action.ADVANCE


def test_rule_6_successes_end_the_phase_and_the_last_finishes() -> None:
    assert judge(GOOD).action is Action.ADVANCE
    assert judge(GOOD, plan=replace(PLAN, phase=3)).action is Action.FINISH
    assert judge(replace(GOOD, succeeded=89, phase_succeeded=89)).action is Action.HOLD
    few = Counts(members=100, answering=9, succeeded=9, phase_succeeded=9)
    assert judge(few).action is Action.HOLD, "fewer than min_devices"
    assert judge(replace(few, members=9)).action is Action.ADVANCE, "but all there are"
    assert judge(Counts(0, 0, 0)).action is Action.HOLD


def test_rule_7_a_control_cohort_wants_recent_data() -> None:
    plan = replace(PLAN, control_percentage=5)
    assert words(judge(GOOD, None, plan)) == ["waiting_for_data"]
    assert judge(GOOD, measured(), plan).action is Action.ADVANCE
    old = replace(measured(), measured_at=NOW - MAX_EVIDENCE_AGE_S - 1)
    assert words(judge(GOOD, old, plan)) == ["waiting_for_data"]


def test_rule_4_all_that_a_later_phase_waits_for_is_enough() -> None:
    plan = replace(PLAN, phase=2, min_devices=50)
    counts = Counts(members=15, answering=15, succeeded=10, phase_failed=5)
    assert judge(counts, plan=plan).action is Action.PAUSE
    assert judge(replace(counts, answering=16), plan=plan).action is Action.HOLD, "one is at work"


def test_rule_5_data_of_another_time_tells_nothing() -> None:
    for measured_at in (NOW - MAX_EVIDENCE_AGE_S - 1, NOW + MAX_EVIDENCE_AGE_S + 1):
        stale = replace(measured(gap_rate=0.9), measured_at=measured_at)
        assert judge(GOOD, stale).action is Action.ADVANCE


def test_rule_8_a_phase_in_which_nobody_answers_is_passed_over() -> None:
    empty = Counts(members=0, answering=0, succeeded=0, later=20)
    assert judge(empty).action is Action.ADVANCE
    assert judge(replace(empty, later=0)).action is Action.HOLD, "no device at all"
    assert judge(empty, plan=replace(PLAN, phase=3)).action is Action.HOLD, "the last phase"
    silent = replace(empty, members=3)
    assert words(judge(silent)) == ["nobody_answers"]
    assert judge(silent).action is Action.HOLD
    assert judge(silent, plan=replace(PLAN, timeout_s=3599)).action is Action.ADVANCE


counts_of = st.builds(
    lambda done, failed, open_, extra: Counts(
        done + failed + open_ + extra, done + failed + open_, done, done, failed
    ),
    *(st.integers(0, 300) for _ in range(4)),
)


@given(counts_of, st.integers(1, 300), st.integers(1, 50))
def test_more_failures_never_turn_a_stop_into_progress(
    counts: Counts, more: int, min_devices: int
) -> None:
    plan = replace(PLAN, min_devices=min_devices)
    if judge(counts, plan=plan).action is Action.PAUSE:
        worse = replace(
            counts,
            members=counts.members + more,
            answering=counts.answering + more,
            phase_failed=counts.phase_failed + more,
        )
        assert judge(worse, plan=plan).action is Action.PAUSE


@given(counts_of)
def test_each_decision_says_why(counts: Counts) -> None:
    decision = judge(counts)
    assert decision.reasons
    assert all(reason.word and reason.text for reason in decision.reasons)
