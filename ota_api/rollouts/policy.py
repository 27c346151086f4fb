"""Whether a rollout goes on, stops or is done: values in, a decision with its reasons out.

The first rule that applies decides:

1. Only a rollout that is running is decided on.
2. A clock that stands before the phase's beginning holds it.
3. A release that no device may take any more (`Plan.refused`: expired, its key not trusted) pauses
   it: who asks for it and is refused would else count as not to be waited for.
4. Failures (timeouts included) among what this phase has concluded, above `error_threshold`, pause
   it once `min_devices` have concluded, or all that the phase waits for.
5. Data of updated devices that is worse than the control's by more than a limit pauses it, where
   it was measured within MAX_EVIDENCE_AGE_S of now, both sides have MIN_READINGS readings, and
   `min_devices` (of more than three: three) were updated.
6. Successes among the members that answer, at `success_threshold` or above, and at least
   `min_devices` of them (or all members), end the phase: the next begins, the last finishes.
7. Where a control cohort was asked for, rule 6 wants data of both sides as in rule 5.
8. A phase without members is passed over, and after `timeout_s` one in which nobody answers, where
   later phases add devices: waiting for nobody proves nothing, and they begin as carefully.
9. Anything else holds it.

Members that answer: those with a deployment that was not aborted, and those seen alive that have
not yet asked since the phase began. A device that was silent before is none of the release's fault;
it is offered the release when it returns.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MIN_READINGS: Final = 20
"""Of each side: a rate over fewer tells little."""
MAX_EVIDENCE_AGE_S: Final = 900.0
MAX_MORE_GAPS: Final = 0.10
"""Share of expected readings."""
MAX_MORE_VIOLATIONS: Final = 0.05
"""Share of readings."""
MAX_MORE_BATTERY_DROP_V_PER_DAY: Final = 0.05
MAX_LESS_CONFIDENCE: Final = 0.15


class Action(StrEnum):
    """What is to be done."""

    HOLD = "hold"
    ADVANCE = "advance"
    FINISH = "finish"
    PAUSE = "pause"


@dataclass(frozen=True)
class Reason:
    """Why; `word` for machines, `text` for people."""

    word: str
    text: str


@dataclass(frozen=True)
class Plan:
    """What the rollout was created with, and where it stands."""

    running: bool
    phase: int
    """From 1."""
    phases: int
    success_threshold: float
    error_threshold: float
    min_devices: int
    control_percentage: float
    timeout_s: float
    phase_started_at: float
    """Epoch seconds."""
    refused: Reason | None = None
    """Why devices are refused the release."""


@dataclass(frozen=True)
class Counts:
    """Devices of the rollout."""

    members: int
    """In the phase's percentage, by bucket and filter."""
    answering: int
    """Members that answer."""
    succeeded: int
    """success and already-installed, of all phases."""
    phase_succeeded: int = 0
    """Since the phase began, or was resumed."""
    phase_failed: int = 0
    """failure and timed_out, likewise."""
    later: int = 0
    """Devices that later phases add; counted where nobody answers."""


@dataclass(frozen=True)
class Cohort:
    """What the readings of some devices are like; None where nothing tells."""

    devices: int
    readings: int
    gap_rate: float | None = None
    range_violation_rate: float | None = None
    battery_drop_v_per_day: float | None = None
    inference_confidence: float | None = None


@dataclass(frozen=True)
class Quality:
    """Updated devices beside those that were not."""

    measured_at: float
    """Epoch seconds."""
    window_s: float
    updated: Cohort
    control: Cohort


@dataclass(frozen=True)
class Decision:
    """An action and its reasons."""

    action: Action
    reasons: list[Reason] = field(default_factory=list)


def decide(plan: Plan, counts: Counts, quality: Quality | None, *, now: float) -> Decision:
    """By the rules above; `now` in epoch seconds."""
    if not plan.running:
        return _hold("not_running", "only a running rollout moves")
    if now < plan.phase_started_at:
        return _hold("clock", "the clock stands before the phase's beginning")
    if plan.refused is not None:
        return Decision(Action.PAUSE, [plan.refused])
    if quality is not None and not _is_sound(plan, quality, now):
        quality = None
    if stop := [*_failures(plan, counts), *_worse_data(quality)]:
        return Decision(Action.PAUSE, stop)
    if not counts.answering and counts.later and plan.phase < plan.phases:
        return _pass_over(plan, counts, now)
    return _progress(plan, counts, quality)


def _pass_over(plan: Plan, counts: Counts, now: float) -> Decision:
    """Rule 8."""
    if not counts.members:
        return Decision(Action.ADVANCE, [Reason("no_members", "no device is in this phase")])
    if now - plan.phase_started_at <= plan.timeout_s:
        return _hold("nobody_answers", f"none of {counts.members} devices answers")
    told = f"none of {counts.members} devices has answered for {plan.timeout_s:.0f} s"
    return Decision(Action.ADVANCE, [Reason("nobody_answers", told)])


def _progress(plan: Plan, counts: Counts, quality: Quality | None) -> Decision:
    """Rules 6, 7 and 9."""
    if not counts.members:
        return _hold("no_members", "no device is in this phase yet")
    enough = min(plan.min_devices, counts.members)
    share = counts.succeeded / max(counts.answering, counts.succeeded, 1)
    told = (
        f"{counts.succeeded} of {counts.answering} devices succeeded ({share:.0%});"
        f" {plan.success_threshold:.0%} and {enough} devices end the phase"
    )
    if share < plan.success_threshold or counts.succeeded < enough:
        return _hold("waiting_for_successes", told)
    if plan.control_percentage and quality is None:
        return _hold("waiting_for_data", "no recent data of both cohorts")
    last = plan.phase == plan.phases
    return Decision(Action.FINISH if last else Action.ADVANCE, [Reason("successes", told)])


def _hold(word: str, text: str) -> Decision:
    return Decision(Action.HOLD, [Reason(word, text)])


def _failures(plan: Plan, counts: Counts) -> list[Reason]:
    """Rule 4."""
    concluded = counts.phase_failed + counts.phase_succeeded
    waited_for = max(counts.answering - counts.succeeded - counts.phase_failed, 0)
    if not concluded or concluded < min(plan.min_devices, concluded + waited_for):
        return []
    share = counts.phase_failed / concluded
    if share <= plan.error_threshold:
        return []
    return [
        Reason(
            "failures",
            f"{counts.phase_failed} of {concluded} devices failed ({share:.0%});"
            f" more than {plan.error_threshold:.0%} stop the rollout",
        )
    ]


def _worse_data(quality: Quality | None) -> list[Reason]:
    """Rule 5, of data that is enough and recent."""
    if quality is None:
        return []
    new, old = quality.updated, quality.control
    compared = (
        ("gap_rate", new.gap_rate, old.gap_rate, MAX_MORE_GAPS),
        (
            "range_violation_rate",
            new.range_violation_rate,
            old.range_violation_rate,
            MAX_MORE_VIOLATIONS,
        ),
        (
            "battery_drop_v_per_day",
            new.battery_drop_v_per_day,
            old.battery_drop_v_per_day,
            MAX_MORE_BATTERY_DROP_V_PER_DAY,
        ),
        (  # less is worse
            "inference_confidence",
            old.inference_confidence,
            new.inference_confidence,
            MAX_LESS_CONFIDENCE,
        ),
    )
    return [
        Reason(
            word,
            f"{word} of updated devices is worse than the control's by {one - other:.3g};"
            f" at most {limit:.3g} is let pass",
        )
        for word, one, other, limit in compared
        if one is not None and other is not None and one - other > limit
    ]


def _is_sound(plan: Plan, quality: Quality, now: float) -> bool:
    """Rule 5: recent by either clock, and of enough devices and readings."""
    sides = (quality.updated, quality.control)
    return (
        abs(now - quality.measured_at) <= MAX_EVIDENCE_AGE_S
        and all(side.readings >= MIN_READINGS and side.devices >= 1 for side in sides)
        and quality.updated.devices >= min(plan.min_devices, 3)
    )
