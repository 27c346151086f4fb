"""Reports of devices on their deployments, by whatever protocol they come."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from ota_api.rollouts.transitions import Claim, Outcome, State, apply
from zenthos_core.errors import ConflictError, NotFoundError

_SELECT: Final = (
    "SELECT d.id, d.rollout_id, d.device_id, d.state, d.stage, d.reason, d.report_counter,"
    " d.confirmed_at, d.offered_at, d.changed_at, r.kind, r.name, r.version, r.sha256"
    " FROM deployments d JOIN rollouts o ON o.id = d.rollout_id"
    " JOIN releases r ON r.id = o.release_id"
)


@dataclass(frozen=True)
class Report:
    """What a device says; `report_counter` is None where the protocol has none."""

    deployment_id: int
    claim: Claim
    report_counter: int | None = None
    detail: dict[str, object] | None = None


@dataclass(frozen=True)
class Deployment:
    """A device's part in a rollout, and of which release."""

    id: int
    rollout_id: UUID
    device_id: str
    state: State
    stage: str | None
    reason: str | None
    report_counter: int
    confirmed_at: datetime | None
    offered_at: datetime
    changed_at: datetime
    kind: str
    name: str
    version: str
    sha256: str


async def report(
    connection: AsyncConnection, now: datetime, device_id: str, told: Report
) -> Deployment:
    """Record a report; the deployment as it is then.

    Raises:
        NotFoundError: where the device has no such deployment.
        ConflictError: for a counter that has been used: a report is heard once.
    """
    deployment = await find_deployment(connection, device_id, told.deployment_id, lock=True)
    if told.report_counter is not None and told.report_counter <= deployment.report_counter:
        raise ConflictError(
            f"report_counter {told.report_counter} has been used:"
            f" the next is {deployment.report_counter + 1}"
        )
    outcome = apply(
        State(deployment.state), told.claim, version=deployment.version, sha256=deployment.sha256
    )
    if outcome is not None and outcome.confirmed and _awaits_proof(deployment):
        outcome = None
    await _record(connection, now, deployment, told, outcome)
    return await find_deployment(connection, device_id, told.deployment_id)


def _awaits_proof(deployment: Deployment) -> bool:
    """Whether the boot was confirmed: said again, it moves neither the proof nor the timeout."""
    return deployment.state == State.REBOOTING and deployment.confirmed_at is not None


async def find_deployment(
    connection: AsyncConnection, device_id: str, deployment_id: int, *, lock: bool = False
) -> Deployment:
    """One of the device's own; NotFoundError for any other."""
    query = f"{_SELECT} WHERE d.id = %s AND d.device_id = %s" + (" FOR UPDATE OF d" * lock)
    async with connection.cursor(row_factory=class_row(Deployment)) as cursor:
        await cursor.execute(query.encode(), (deployment_id, device_id))
        found = await cursor.fetchone()
    if found is None:
        raise NotFoundError(f"device {device_id} has no deployment {deployment_id}")
    return found


async def _record(
    connection: AsyncConnection,
    now: datetime,
    deployment: Deployment,
    told: Report,
    outcome: Outcome | None,
) -> None:
    """One that changes nothing is an event all the same, unless it repeats what is known; one that
    does, voids a confirmation."""
    counter = told.report_counter or deployment.report_counter + 1
    state = outcome or Outcome(State(deployment.state), deployment.stage, deployment.reason)
    confirmed_at = deployment.confirmed_at
    if outcome is not None:
        confirmed_at = now if outcome.confirmed else None
    await connection.execute(
        "UPDATE deployments SET state = %s, stage = %s, reason = %s, report_counter = %s,"
        " confirmed_at = %s, changed_at = %s WHERE id = %s",
        (
            *(state.state, state.stage, state.reason, counter),
            *(confirmed_at, now if outcome else deployment.changed_at, deployment.id),
        ),
    )
    claim = told.claim
    said = {"said": claim.state, "version": claim.version, "sha256": claim.sha256}
    differs = outcome is None or claim.state != state.state
    detail = {**(said if differs else {}), **(told.detail or {})}
    known = (deployment.state, deployment.stage, deployment.reason)
    if not detail and known == (state.state, state.stage, state.reason):
        return
    await connection.execute(
        "INSERT INTO deployment_events (deployment_id, at, state, stage, reason, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (
            *(deployment.id, now, state.state, state.stage, state.reason),
            Jsonb(detail) if detail else None,
        ),
    )
