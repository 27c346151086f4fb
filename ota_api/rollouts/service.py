"""Steering rollouts.

1. created → running → finished; running ↔ paused; any of them but finished → aborted.
2. A release and device model have one open rollout at a time.
3. What devices are refused (withdrawn, expired, its key not trusted) gets no rollout, and none of
   its rollouts is started or resumed.
4. An abort ends the deployments that are open; what devices report of them later is still recorded.
5. A pause keeps them; a resume begins the phase's clock anew, and failures count from there.
6. The way back is another release of the same name and a higher counter (a reissue), to all who
   match the rollout.
7. A failure that is reported may pause its rollout at once; nothing else is decided then.
8. Each change is in the audit log, of `rollout <id>`, with its reasons and what it was based on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from psycopg import errors

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.rollouts import evaluation, policy
from ota_api.rollouts.evaluation import RolloutRow
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.schemas import NewRollout
from zenthos_core import alerts
from zenthos_core.alerts import Alert
from zenthos_core.errors import ConfigurationError, ConflictError, InvalidInputError, NotFoundError
from zenthos_core.signing import ReleaseKey

OPEN: Final = ("created", "running", "paused")
PAUSED_ALERT: Final = "rollout_paused"

_STEPS: Final[dict[policy.Action, Action]] = {
    policy.Action.ADVANCE: Action.ROLLOUT_ADVANCE,
    policy.Action.FINISH: Action.ROLLOUT_FINISH,
    policy.Action.PAUSE: Action.ROLLOUT_PAUSE,
}


@dataclass(frozen=True)
class Evaluation:
    """A decision, and what it was based on."""

    decision: policy.Decision
    rollout: RolloutRow
    counts: policy.Counts
    proven: int
    timed_out: int


class Rollouts:
    """The rollouts, changed by one actor in one transaction at one time."""

    def __init__(
        self,
        rollouts: RolloutRepository,
        trail: AuditTrail,
        now: datetime,
        keys: Callable[[], Sequence[ReleaseKey]],
    ) -> None:
        """`keys` gives those that keys.json trusts, or raises ConfigurationError."""
        self._rollouts = rollouts
        self._trail = trail
        self._now = now
        self._keys = keys

    async def create(self, wanted: NewRollout, *, rollback_of: UUID | None = None) -> RolloutRow:
        """Rules 2 and 3.

        Raises:
            NotFoundError: where there is no such release, or not for that device model.
            ConflictError: by rules 2 and 3.
        """
        model = await self._target(wanted)
        values = wanted.model_dump(exclude={"start", "device_model"})
        started = self._now if wanted.start else None
        try:
            rollout_id = await self._rollouts.insert(
                {
                    **values,
                    "device_model": model,
                    "state": "running" if wanted.start else "created",
                    "rollback_of": rollback_of,
                    "created_by": self._trail.actor.name,
                    "created_at": self._now,
                    "started_at": started,
                    "phase_started_at": started,
                }
            )
        except errors.UniqueViolation:
            raise ConflictError(
                f"a rollout of this release to {model} is open: abort it, or wait for its end"
            ) from None
        except errors.ForeignKeyViolation:
            raise NotFoundError(f"no farm {wanted.farm_id}") from None
        rollout = await self.find(rollout_id)
        await self._record(Action.ROLLOUT_CREATE, rollout, None, _settings(rollout))
        return rollout

    async def find(self, rollout_id: UUID, *, lock: bool = False) -> RolloutRow:
        """One rollout; NotFoundError where there is none."""
        rollout = await self._rollouts.find(rollout_id, lock=lock)
        if rollout is None:
            raise NotFoundError(f"no rollout {rollout_id}")
        return rollout

    async def start(self, rollout_id: UUID) -> RolloutRow:
        """From created."""
        began = {"started_at": self._now, "phase_started_at": self._now}
        return await self._move(
            rollout_id, ("created",), "running", Action.ROLLOUT_START, changes=began
        )

    async def pause(self, rollout_id: UUID, reason: str) -> RolloutRow:
        """By a person; nothing new is offered."""
        changes = {"paused_reason": reason or f"by {self._trail.actor.name}"}
        return await self._move(
            rollout_id, ("running",), "paused", Action.ROLLOUT_PAUSE, changes=changes
        )

    async def resume(self, rollout_id: UUID) -> RolloutRow:
        """Rule 5."""
        changes = {"paused_reason": None, "phase_started_at": self._now}
        rollout = await self._move(
            rollout_id, ("paused",), "running", Action.ROLLOUT_RESUME, changes=changes
        )
        await self._resolve_alert(rollout)
        return rollout

    async def abort(
        self, rollout_id: UUID, reason: str, *, allowed: tuple[str, ...] = OPEN
    ) -> RolloutRow:
        """Rule 4."""
        rollout = await self._move(
            rollout_id, allowed, "aborted", Action.ROLLOUT_ABORT,
            changes={"ended_at": self._now}, reason=reason,
        )  # fmt: skip
        await self._rollouts.abort_deployments("rollout_aborted", self._now, rollout_id=rollout_id)
        await self._resolve_alert(rollout)
        return rollout

    async def abort_all_of(self, release_id: UUID, reason: str) -> int:
        """End what is open of a release that was withdrawn; how many rollouts. One that is finished
        stays so, and its deployments that are open end."""
        opened = await self._rollouts.open_of(release_id)
        for rollout_id in opened:
            await self.abort(rollout_id, reason)
        await self._rollouts.abort_deployments("withdrawn", self._now, release_id=release_id)
        return len(opened)

    async def roll_back(self, rollout_id: UUID, release_id: UUID) -> RolloutRow:
        """Rule 6: ends a rollout, and runs one of `release_id` for the same devices.

        Raises:
            NotFoundError: where there is no such release.
            InvalidInputError: for a release that devices would refuse.
        """
        rollout = await self.find(rollout_id, lock=True)
        await self._check_way_back(rollout, release_id)
        if rollout.state != "aborted":
            await self.abort(rollout_id, "rolled back", allowed=(*OPEN, "finished"))
        wanted = NewRollout(
            release_id=release_id,
            device_model=rollout.device_model,
            farm_id=rollout.farm_id,
            tag=rollout.tag,
            phases=[100],
            control_percentage=0,
            success_threshold=rollout.success_threshold,
            error_threshold=rollout.error_threshold,
            min_devices=rollout.min_devices,
            timeout_s=rollout.timeout_s,
            start=True,
        )
        back = await self.create(wanted, rollback_of=rollout_id)
        await self._record(
            Action.ROLLOUT_ROLLBACK, rollout, {"version": rollout.version},
            {"version": back.version, "rollout_id": str(back.id)},
        )  # fmt: skip
        return back

    async def evaluate(self, rollout_id: UUID, quality: policy.Quality | None) -> Evaluation:
        """Conclude what can be concluded, decide, and do what was decided."""
        rollout = await self.find(rollout_id, lock=True)
        proven, timed_out = (0, 0)
        if rollout.state != "created":
            connection = self._rollouts.connection
            proven, timed_out = await evaluation.conclude(connection, rollout, self._now)
        counts, decision = await self._decide(rollout, quality)
        if rollout.state == "running":
            await self._keep(rollout_id, decision)
        evaluated = Evaluation(decision, rollout, counts, proven, timed_out)
        if decision.action is policy.Action.HOLD:
            return evaluated
        await self._carry_out(evaluated, quality)
        return Evaluation(decision, await self.find(rollout_id), counts, proven, timed_out)

    async def halt(self, rollout: RolloutRow) -> bool:
        """Rule 7, for a rollout that is locked; whether it was paused."""
        if rollout.state != "running":
            return False
        counts, decision = await self._decide(rollout, None)
        if decision.action is not policy.Action.PAUSE:
            return False
        await self._keep(rollout.id, decision)
        await self._carry_out(Evaluation(decision, rollout, counts, 0, 0), None)
        return True

    async def _decide(
        self, rollout: RolloutRow, quality: policy.Quality | None
    ) -> tuple[policy.Counts, policy.Decision]:
        counts, _ = await evaluation.count(self._rollouts.connection, rollout, self._now)
        plan = _plan(rollout, await self._refused(rollout, self._known_keys()))
        return counts, policy.decide(plan, counts, quality, now=self._now.timestamp())

    async def _keep(self, rollout_id: UUID, decision: policy.Decision) -> None:
        reasons = msgspec.to_builtins(decision.reasons)
        await self._rollouts.keep_evaluation(rollout_id, self._now, decision.action, reasons)

    async def _check_way_back(self, rollout: RolloutRow, release_id: UUID) -> None:
        """Rule 6; locks the release before anything is changed, as who withdraws it does."""
        if release_id == rollout.release_id:
            raise InvalidInputError(
                "the rollout is of that release: reissue the older version first"
                " (`zenthos release reissue`)"
            )
        back = await self._rollouts.terms(release_id, lock=True)
        there = await self._rollouts.terms(rollout.release_id)
        if back is None or there is None:
            raise NotFoundError(f"no release {release_id}")
        if (back.kind, back.name) != (there.kind, there.name):
            raise InvalidInputError(
                f"the rollout is of {there.kind} {there.name}, not of {back.kind} {back.name}"
            )
        if back.release_counter <= there.release_counter:
            raise InvalidInputError(
                f"release_counter {back.release_counter} is not above {there.release_counter},"
                " which devices have: reissue the older version first (`zenthos release reissue`)"
            )

    async def _refused(
        self, rollout: RolloutRow, keys: Sequence[ReleaseKey] | None
    ) -> policy.Reason | None:
        terms = await self._rollouts.terms(rollout.release_id)
        assert terms is not None, "a rollout is of a release"  # noqa: S101
        return terms.refused(keys, self._now)

    def _known_keys(self) -> Sequence[ReleaseKey] | None:
        """A server without keys refuses devices all the same; what they report still counts."""
        try:
            return self._keys()
        except ConfigurationError:
            return None

    async def _carry_out(self, evaluated: Evaluation, quality: policy.Quality | None) -> None:
        rollout, decision = evaluated.rollout, evaluated.decision
        steps: dict[policy.Action, dict[str, Any]] = {
            policy.Action.ADVANCE: {"phase": rollout.phase + 1, "phase_started_at": self._now},
            policy.Action.FINISH: {"state": "finished", "ended_at": self._now},
            policy.Action.PAUSE: {"state": "paused", "paused_reason": _text(decision)},
        }
        changes = steps[decision.action]
        await self._rollouts.update(rollout.id, changes)
        before = {"state": rollout.state, "phase": rollout.phase}
        after = {
            **{name: value for name, value in changes.items() if name in {"state", "phase"}},
            "reasons": msgspec.to_builtins(decision.reasons),
            "evidence": {
                "counts": msgspec.to_builtins(evaluated.counts),
                "quality": msgspec.to_builtins(quality),
            },
        }
        await self._record(_STEPS[decision.action], rollout, before, after)
        if decision.action is policy.Action.PAUSE:
            await self._raise_alert(rollout, decision, after["evidence"])

    async def _move(
        self, rollout_id: UUID, allowed: tuple[str, ...], state: str, action: Action, *,
        changes: dict[str, Any], reason: str = "",
    ) -> RolloutRow:  # fmt: skip
        """Rules 1 and 3."""
        before = await self.find(rollout_id, lock=True)
        if before.state not in allowed:
            raise ConflictError(
                f"rollout {rollout_id} is {before.state}: this takes one that is"
                f" {' or '.join(allowed)}"
            )
        if state == "running" and (refused := await self._refused(before, self._keys())):
            raise ConflictError(refused.text)
        await self._rollouts.update(rollout_id, {**changes, "state": state})
        told = {"state": state} | ({"reason": reason} if reason else {})
        if changes.get("paused_reason"):
            told["reason"] = changes["paused_reason"]
        await self._record(action, before, {"state": before.state, "phase": before.phase}, told)
        return await self.find(rollout_id)

    async def _target(self, wanted: NewRollout) -> str:
        """The device model."""
        terms = await self._rollouts.terms(wanted.release_id, lock=True)
        if terms is None:
            raise NotFoundError(f"no release {wanted.release_id}")
        if refused := terms.refused(self._keys(), self._now):
            raise ConflictError(refused.text)
        models = terms.device_models
        if wanted.device_model is None and len(models) > 1:
            raise InvalidInputError(f"say which device_model: {', '.join(models)}")
        model = wanted.device_model or models[0]
        if model not in models:
            raise NotFoundError(f"the release is for {', '.join(models)}, not for {model}")
        return model

    async def _record(
        self, action: Action, rollout: RolloutRow, before: dict[str, Any] | None,
        after: dict[str, Any],
    ) -> None:  # fmt: skip
        await self._trail.record(action, f"rollout {rollout.id}", before=before, after=after)

    async def _raise_alert(
        self, rollout: RolloutRow, decision: policy.Decision, evidence: dict[str, Any]
    ) -> None:
        alert = Alert(
            alert_type=PAUSED_ALERT,
            severity="critical",
            subject=f"rollout {rollout.id}",
            message=f"rollout of {rollout.name} {rollout.version} to {rollout.device_model} paused"
            f" in phase {rollout.phase}: {_text(decision)}",
            farm_id=None if rollout.farm_id is None else str(rollout.farm_id),
            rollout_id=str(rollout.id),
            evidence=evidence,
        )
        values = {**alert.parameters(), "at": self._now}
        await self._rollouts.connection.execute(alerts.RAISE.encode(), values)

    async def _resolve_alert(self, rollout: RolloutRow) -> None:
        values = {
            "alert_type": PAUSED_ALERT,
            "subject": f"rollout {rollout.id}",
            "by": self._trail.actor.name,
            "at": self._now,
        }
        await self._rollouts.connection.execute(alerts.RESOLVE.encode(), values)


def _plan(rollout: RolloutRow, refused: policy.Reason | None) -> policy.Plan:
    began = rollout.phase_started_at or rollout.created_at
    return policy.Plan(
        running=rollout.state == "running",
        phase=rollout.phase,
        phases=len(rollout.phases),
        success_threshold=rollout.success_threshold,
        error_threshold=rollout.error_threshold,
        min_devices=rollout.min_devices,
        control_percentage=rollout.control_percentage,
        timeout_s=rollout.timeout_s,
        phase_started_at=began.timestamp(),
        refused=refused,
    )


def _text(decision: policy.Decision) -> str:
    return "; ".join(reason.text for reason in decision.reasons)


def _settings(rollout: RolloutRow) -> dict[str, Any]:
    names = (
        *("release_id", "version", "device_model", "farm_id", "tag", "phases"),
        *("control_percentage", "success_threshold", "error_threshold", "min_devices"),
        *("timeout_s", "state"),
    )
    settings: dict[str, Any] = msgspec.to_builtins({n: getattr(rollout, n) for n in names})
    return settings
