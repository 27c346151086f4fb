"""Rollouts: operators steer them, the lineage has them evaluated, devices report on them."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query

from ota_api.auth import Known, OneDevice, Publisher, Steering, Trail, User, check_own
from ota_api.fields import DeviceIdPath, DeviceModel
from ota_api.pagination import Limit, Page, cut_page
from ota_api.resources import Opened, Transaction
from ota_api.rollouts import evaluation, policy
from ota_api.rollouts.halting import halt_if_failing
from ota_api.rollouts.reports import Report, report
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.schemas import (
    DeploymentHistory,
    DeploymentView,
    Evaluated,
    Evidence,
    NewRollout,
    PauseReason,
    Rollback,
    Rollout,
    RolloutDetail,
    RolloutEvent,
    StatusReport,
)
from ota_api.rollouts.service import Rollouts
from ota_api.rollouts.transitions import Claim, State

router = APIRouter(tags=["rollouts"])

RolloutId = Annotated[UUID, Path()]
AfterNumber = Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before.")]


async def _service(connection: Transaction, trail: Trail, resources: Opened) -> Rollouts:
    now = datetime.fromtimestamp(resources.clock(), UTC)
    return Rollouts(RolloutRepository(connection), trail, now, resources.release_keys)


Service = Annotated[Rollouts, Depends(_service)]


@router.post("/rollouts", status_code=HTTPStatus.CREATED)
async def post_rollout(wanted: NewRollout, _: Steering, rollouts: Service) -> Rollout:
    """Create a rollout of a release, and start it unless told otherwise."""
    return _view(await rollouts.create(wanted))


@router.get("/rollouts")
async def get_rollouts(
    *,
    _: User,
    connection: Transaction,
    state: Annotated[
        str | None, Query(pattern="^(created|running|paused|finished|aborted)$")
    ] = None,
    device_model: Annotated[DeviceModel | None, Query()] = None,
    release_id: UUID | None = None,
    after: UUID | None = None,
    limit: Limit = 100,
) -> Page[Rollout]:
    """Rollouts, the newest first."""
    filters = {"state": state, "device_model": device_model, "release_id": release_id}
    rows = await RolloutRepository(connection).page(after, limit + 1, filters)
    return cut_page([_view(row) for row in rows], limit, lambda rollout: str(rollout.id))


@router.get("/rollouts/{rollout_id}")
async def get_rollout(
    rollout_id: RolloutId, _: User, rollouts: Service, connection: Transaction, resources: Opened
) -> RolloutDetail:
    """A rollout with its numbers."""
    rollout = await rollouts.find(rollout_id)
    now = datetime.fromtimestamp(resources.clock(), UTC)
    counts, states = await evaluation.count(connection, rollout, now)
    repository = RolloutRepository(connection)
    return RolloutDetail.model_validate(
        {
            **vars(rollout),
            "members": counts.members,
            "answering": counts.answering,
            "states": states,
            "failures": await repository.failures(rollout_id),
            "evaluation": await repository.last_evaluation(rollout_id),
        }
    )


@router.get("/rollouts/{rollout_id}/deployments")
async def get_rollout_deployments(
    *,
    rollout_id: RolloutId,
    _: User,
    rollouts: Service,
    connection: Transaction,
    state: State | None = None,
    after: AfterNumber = 0,
    limit: Limit = 100,
) -> Page[DeploymentView]:
    """Its devices, in the order in which they were offered the release."""
    await rollouts.find(rollout_id)
    rows = await RolloutRepository(connection).deployments(
        after, limit + 1, rollout_id=rollout_id, state=state
    )
    found = [DeploymentView.model_validate(row) for row in rows]
    return cut_page(found, limit, lambda deployment: str(deployment.id))


@router.get("/rollouts/{rollout_id}/events")
async def get_rollout_events(
    *,
    rollout_id: RolloutId,
    _: User,
    rollouts: Service,
    connection: Transaction,
    after: AfterNumber = 0,
    limit: Limit = 100,
) -> Page[RolloutEvent]:
    """What was decided on it, by whom, why and upon what; the newest first."""
    await rollouts.find(rollout_id)
    rows = await RolloutRepository(connection).decisions(rollout_id, after, limit + 1)
    found = [RolloutEvent.model_validate(row) for row in rows]
    return cut_page(found, limit, lambda event: str(event.id))


@router.post("/rollouts/{rollout_id}/start")
async def start_rollout(rollout_id: RolloutId, _: Steering, rollouts: Service) -> Rollout:
    """Begin the first phase."""
    return _view(await rollouts.start(rollout_id))


@router.post("/rollouts/{rollout_id}/pause")
async def pause_rollout(
    rollout_id: RolloutId, why: PauseReason, _: Steering, rollouts: Service
) -> Rollout:
    """Offer it to no further device."""
    return _view(await rollouts.pause(rollout_id, why.reason))


@router.post("/rollouts/{rollout_id}/resume")
async def resume_rollout(rollout_id: RolloutId, _: Steering, rollouts: Service) -> Rollout:
    """Go on; what failed so far is not counted again."""
    return _view(await rollouts.resume(rollout_id))


@router.post("/rollouts/{rollout_id}/abort")
async def abort_rollout(
    rollout_id: RolloutId, why: PauseReason, _: Steering, rollouts: Service
) -> Rollout:
    """End it; devices that have the release keep it."""
    return _view(await rollouts.abort(rollout_id, why.reason))


@router.post("/rollouts/{rollout_id}/rollback", status_code=HTTPStatus.CREATED)
async def roll_back_rollout(
    rollout_id: RolloutId, wanted: Rollback, _: Steering, rollouts: Service
) -> Rollout:
    """End it and take its devices to another release, which is the rollout answered."""
    return _view(await rollouts.roll_back(rollout_id, wanted.release_id))


@router.post("/rollouts/{rollout_id}/evaluate")
async def evaluate_rollout(
    rollout_id: RolloutId, evidence: Evidence, _: Publisher, rollouts: Service
) -> Evaluated:
    """Conclude, decide by the policy, and do what was decided."""
    told = evidence.quality
    quality = None
    if told is not None:
        quality = policy.Quality(
            told.measured_at,
            told.window_s,
            policy.Cohort(**told.updated.model_dump()),
            policy.Cohort(**told.control.model_dump()),
        )
    found = await rollouts.evaluate(rollout_id, quality)
    return Evaluated.model_validate(
        {
            "action": found.decision.action,
            "reasons": [vars(reason) for reason in found.decision.reasons],
            "state": found.rollout.state,
            "phase": found.rollout.phase,
            "counts": vars(found.counts),
            "proven": found.proven,
            "timed_out": found.timed_out,
        }
    )


@router.post("/devices/{device_id}/update-status")
async def post_update_status(
    *,
    device_id: DeviceIdPath,
    told: StatusReport,
    identity: OneDevice,
    connection: Transaction,
    resources: Opened,
    background: BackgroundTasks,
) -> DeploymentView:
    """A device reports on its update; each report_counter is above the last."""
    check_own(identity, device_id)
    claim = Claim(told.state, told.stage, told.reason, told.version, told.sha256)
    now = datetime.fromtimestamp(resources.clock(), UTC)
    heard = Report(told.deployment_id, claim, told.report_counter)
    deployment = await report(connection, now, device_id, heard)
    if deployment.state == State.FAILURE:
        background.add_task(halt_if_failing, resources, deployment.rollout_id)
    return DeploymentView.model_validate(vars(deployment))


@router.get("/devices/{device_id}/deployments")
async def get_device_deployments(
    *,
    device_id: DeviceIdPath,
    identity: Known,
    connection: Transaction,
    after: AfterNumber = 0,
    limit: Limit = 50,
) -> Page[DeploymentHistory]:
    """What a device was offered and what became of it, step by step; the newest first."""
    check_own(identity, device_id)
    repository = RolloutRepository(connection)
    rows = await repository.deployments(after, limit + 1, device_id=device_id)
    events = await repository.events([row["id"] for row in rows])
    steps: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
    for event in events:
        steps[event.pop("deployment_id")].append(event)
    found = [DeploymentHistory.model_validate({**row, "events": steps[row["id"]]}) for row in rows]
    return cut_page(found, limit, lambda deployment: str(deployment.id))


def _view(rollout: evaluation.RolloutRow) -> Rollout:
    return Rollout.model_validate(vars(rollout))
