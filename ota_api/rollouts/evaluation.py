"""What a rollout's devices have come to, as statements over all of them at once.

1. Proof of success: after a device has confirmed the boot of the signed version and hash, ingest
   has stored PROOF_READINGS telemetry messages that name the version. It counts, too, when the
   deployment had been given up by then.
2. An open deployment without change for `timeout_s` times out. One that the device has not begun
   does so only where it could: not while the rollout is paused, nor sooner than `timeout_s` after
   the phase began or was resumed.
3. While the rollout runs, a member that has sent data since the phase began, but has not asked for
   `timeout_s`, times out as well.
4. A device that has left the rollout's farm or tag before it began is no failure: its deployment
   ends (LEFT), until it is back.
5. Who has asked for the latest of its kind (firmware, or any model) since the phase began and was
   offered nothing cannot take the release: it is not waited for. ASKED_AFTER allows for those who
   ask while the phase begins.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ota_api.rollouts.membership import BUCKETS
from ota_api.rollouts.policy import Counts
from ota_api.rollouts.transitions import LEFT, NEVER_ASKED, NOT_BEGUN

PROOF_READINGS: Final = 3
ASKED_AFTER: Final = timedelta(seconds=10)

_IS_FOR: Final = (
    "((%(farm_id)s::uuid IS NULL OR v.farm_id = %(farm_id)s)"
    " AND (%(tag)s::text IS NULL OR v.tags @> ARRAY[%(tag)s::text]))"
)
_MATCHES: Final = (
    f"v.device_model = %(device_model)s AND v.decommissioned_at IS NULL AND {_IS_FOR}"
    " AND (%(end)s >= 10000 OR rollout_bucket(%(id)s, v.id) < %(end)s)"
)

_HAS_NOT_ASKED: Final = (
    "coalesce(CASE WHEN %(is_model)s THEN v.model_checked_in_at ELSE v.checked_in_at END"
    " < %(asked_after)s, true)"
)

_PROVE: Final = """
WITH ready AS (
  SELECT d.id FROM deployments d
  WHERE d.rollout_id = %(id)s AND d.confirmed_at IS NOT NULL
    AND d.state IN ('rebooting', 'timed_out', 'aborted') AND (
    SELECT count(*) FROM (
      SELECT FROM telemetry_hot t
      WHERE t.device_id = d.device_id AND t.time >= d.confirmed_at - INTERVAL '1 hour'
        AND t.received_at >= d.confirmed_at AND NOT t.backlog AND t.{column} = %(version)s
      LIMIT {readings}) good
    ) = {readings}
  FOR UPDATE SKIP LOCKED
), proven AS (
  UPDATE deployments d
  SET state = 'success', stage = NULL, reason = NULL, changed_at = %(now)s
  FROM ready WHERE d.id = ready.id RETURNING d.id
)
INSERT INTO deployment_events (deployment_id, at, state) SELECT id, %(now)s, 'success' FROM proven
"""

_LEAVE: Final = f"""
WITH gone AS (
  SELECT d.id FROM deployments d JOIN devices v ON v.id = d.device_id
  WHERE d.rollout_id = %(id)s AND d.state = 'pending' AND {_IS_FOR} IS NOT TRUE
  FOR UPDATE OF d SKIP LOCKED
), ended AS (
  UPDATE deployments d SET state = 'aborted', reason = '{LEFT}', changed_at = %(now)s
  FROM gone WHERE d.id = gone.id RETURNING d.id
)
INSERT INTO deployment_events (deployment_id, at, state, reason)
  SELECT id, %(now)s, 'aborted', '{LEFT}' FROM ended
"""

_TIME_OUT: Final = f"""
WITH late AS (
  SELECT id, state,
    CASE state WHEN 'pending' THEN '{NOT_BEGUN}' ELSE 'silent' END AS reason FROM deployments
  WHERE rollout_id = %(id)s AND state IN ('pending', 'downloading', 'installing', 'rebooting')
    AND changed_at < %(deadline)s
    AND (state <> 'pending' OR (%(state)s <> 'paused' AND %(phase_started_at)s < %(deadline)s))
  FOR UPDATE SKIP LOCKED
), ended AS (
  UPDATE deployments d
  SET state = 'timed_out', stage = late.state, reason = late.reason, changed_at = %(now)s
  FROM late WHERE d.id = late.id RETURNING d.id, d.stage, d.reason
)
INSERT INTO deployment_events (deployment_id, at, state, stage, reason)
  SELECT id, %(now)s, 'timed_out', stage, reason FROM ended
"""

_NEVER_ASKED: Final = f"""
WITH silent AS (
  INSERT INTO deployments (rollout_id, device_id, phase, state, stage, reason,
    previous_version, offered_at, changed_at)
  SELECT %(id)s, v.id, %(phase)s, 'timed_out', 'check-in', '{NEVER_ASKED}',
    v.firmware_version, %(phase_started_at)s, %(now)s
  FROM devices v
  WHERE {_MATCHES} AND v.created_at < %(phase_started_at)s AND v.last_seen > %(phase_started_at)s
    AND {_HAS_NOT_ASKED}
  ON CONFLICT (rollout_id, device_id) DO NOTHING RETURNING id
)
INSERT INTO deployment_events (deployment_id, at, state, stage, reason)
  SELECT id, %(now)s, 'timed_out', 'check-in', '{NEVER_ASKED}' FROM silent
"""

_MEMBERS: Final = f"""
SELECT count(*),
  count(*) FILTER (
    WHERE greatest(v.last_seen, v.checked_in_at, v.model_checked_in_at) > %(deadline)s
    AND {_HAS_NOT_ASKED}
    AND NOT EXISTS (
      SELECT FROM deployments d WHERE d.rollout_id = %(id)s AND d.device_id = v.id))
FROM devices v WHERE {_MATCHES}
"""

_ALL_MEMBERS: Final = f"SELECT count(*) FROM devices v WHERE {_MATCHES}"

_STATES: Final = """
SELECT state, count(*), count(*) FILTER (WHERE changed_at >= %(phase_started_at)s)
FROM deployments WHERE rollout_id = %(id)s GROUP BY state
"""


@dataclass(frozen=True)
class RolloutRow:
    """A rollout, its release, and where it stands."""

    id: UUID
    release_id: UUID
    kind: str
    name: str
    version: str
    device_model: str
    farm_id: UUID | None
    tag: str | None
    phases: list[float]
    control_percentage: float
    success_threshold: float
    error_threshold: float
    min_devices: int
    timeout_s: int
    state: str
    phase: int
    paused_reason: str | None
    rollback_of: UUID | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    phase_started_at: datetime | None
    ended_at: datetime | None

    @property
    def percentage(self) -> float:
        """Of the phase."""
        return self.phases[self.phase - 1]

    def bucket_end(self, percentage: float) -> int:
        """First bucket that is not in; see ota_api.rollouts.membership."""
        control = 0 if self.state == "finished" else self.control_percentage
        return min(round(percentage * 100), BUCKETS - round(control * 100))


async def conclude(
    connection: AsyncConnection, rollout: RolloutRow, now: datetime
) -> tuple[int, int]:
    """Proven successes and timeouts, written down; how many of each."""
    values = _values(rollout, now)
    column = "model_version" if rollout.kind == "model" else "firmware_version"
    prove = _PROVE.format(column=column, readings=PROOF_READINGS)
    proven = await connection.execute(prove.encode(), values)
    if rollout.farm_id or rollout.tag:
        await connection.execute(_LEAVE.encode(), values)
    late = (await connection.execute(_TIME_OUT.encode(), values)).rowcount
    if rollout.state == "running" and values["phase_started_at"] < values["deadline"]:
        late += (await connection.execute(_NEVER_ASKED.encode(), values)).rowcount
    return proven.rowcount, late


async def count(
    connection: AsyncConnection, rollout: RolloutRow, now: datetime
) -> tuple[Counts, dict[str, int]]:
    """For the policy, and all deployments by state."""
    values = _values(rollout, now)
    row = await (await connection.execute(_MEMBERS.encode(), values)).fetchone()
    members, unasked = row if row is not None else (0, 0)
    rows = await (await connection.execute(_STATES.encode(), values)).fetchall()
    whole = {state: total for state, total, _ in rows}
    phase = {state: recent for state, _, recent in rows}
    succeeded = _of(whole, "success", "already-installed")
    failed = _of(phase, "failure", "timed_out")
    at_work = _of(whole, "pending", "downloading", "installing", "rebooting")
    answering = succeeded + at_work + failed + unasked
    counts = Counts(
        members=members,
        answering=answering,
        succeeded=succeeded,
        phase_succeeded=_of(phase, "success", "already-installed"),
        phase_failed=failed,
        later=0 if answering else await _count_later(connection, rollout, values, members),
    )
    return counts, whole


async def _count_later(
    connection: AsyncConnection, rollout: RolloutRow, values: dict[str, Any], members: int
) -> int:
    """Devices that the phases after this one add."""
    last = {**values, "end": rollout.bucket_end(rollout.phases[-1])}
    row = await (await connection.execute(_ALL_MEMBERS.encode(), last)).fetchone()
    return (row[0] if row is not None else 0) - members


async def read_rollout(
    connection: AsyncConnection, query: str, values: dict[str, Any]
) -> list[RolloutRow]:
    """Rows of a query over rollouts."""
    async with connection.cursor(row_factory=class_row(RolloutRow)) as cursor:
        await cursor.execute(query.encode(), values)
        return await cursor.fetchall()


def _of(counts: dict[str, int], *states: str) -> int:
    return sum(counts.get(state, 0) for state in states)


def _values(rollout: RolloutRow, now: datetime) -> dict[str, Any]:
    began = rollout.phase_started_at or now
    return {
        "id": rollout.id,
        "device_model": rollout.device_model,
        "farm_id": rollout.farm_id,
        "tag": rollout.tag,
        "state": rollout.state,
        "end": rollout.bucket_end(rollout.percentage),
        "phase": rollout.phase,
        "version": rollout.version,
        "is_model": rollout.kind == "model",
        "now": now,
        "deadline": now - timedelta(seconds=rollout.timeout_s),
        "phase_started_at": began,
        "asked_after": began + ASKED_AFTER,
    }
