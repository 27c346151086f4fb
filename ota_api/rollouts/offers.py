"""A release is offered to a device: from now on it has a part in the rollout.

1. There is one deployment for a rollout and device, however often and by however many at once it
   is offered.
2. A device that reports to run the version has it installed already.
3. A newer offer ends the open deployments of older releases in the slot: they are superseded. One
   that was superseded is taken up again when its release is the newest once more.
4. A rollout that was stopped in this moment offers nothing: its row is read again, under a lock
   that waits for whoever stops it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from ota_api.rollouts.transitions import OPEN, State

SUPERSEDED: Final = "superseded"
"""The reason of an aborted deployment that may be taken up again."""

_OFFER: Final = """
WITH rollout AS (
  SELECT id, phase FROM rollouts WHERE id = %(rollout_id)s AND state = ANY(%(offering)s) FOR SHARE
), offered AS (
  INSERT INTO deployments AS d
    (rollout_id, device_id, phase, state, previous_version, offered_at, changed_at)
  SELECT id, %(device_id)s, phase, %(state)s, %(running)s, %(now)s, %(now)s FROM rollout
  ON CONFLICT (rollout_id, device_id) DO UPDATE SET
    state = excluded.state, phase = excluded.phase, stage = NULL, reason = NULL,
    previous_version = excluded.previous_version,
    offered_at = excluded.offered_at, changed_at = excluded.changed_at
    WHERE d.state = 'aborted' AND d.reason = %(superseded)s
  RETURNING id, state, NULL::text AS reason
), superseded AS (
  UPDATE deployments SET state = 'aborted', reason = %(superseded)s, changed_at = %(now)s
  WHERE device_id = %(device_id)s AND rollout_id = ANY(%(older)s) AND state = ANY(%(open)s)
    AND EXISTS (SELECT FROM offered)
  RETURNING id, state, reason
)
INSERT INTO deployment_events (deployment_id, at, state, reason)
SELECT id, %(now)s, state, reason FROM offered
UNION ALL SELECT id, %(now)s, state, reason FROM superseded
"""
_FIND: Final = """
SELECT d.id, d.rollout_id, d.state, d.reason FROM deployments d JOIN rollouts r ON r.id = rollout_id
WHERE rollout_id = %(rollout_id)s AND device_id = %(device_id)s AND r.state = ANY(%(offering)s)
"""
OFFERING: Final = ("running", "finished")


class Deployment(msgspec.Struct, frozen=True):
    """The device's part in a rollout."""

    id: int
    rollout_id: UUID
    state: str
    reason: str | None = None

    @property
    def superseded(self) -> bool:
        """Whether a newer offer took its place."""
        return self.state == State.ABORTED and self.reason == SUPERSEDED


class Offer(msgspec.Struct, frozen=True):
    """Who is offered what; `older` are rollouts of older releases in the slot."""

    rollout_id: UUID
    device_id: str
    version: str
    running: str | None
    older: Sequence[UUID] = ()


async def record_offer(
    connection: AsyncConnection, now: datetime, offer: Offer
) -> Deployment | None:
    """The deployment there is now; None by rule 4."""
    installed = offer.running == offer.version
    parameters = {
        "rollout_id": offer.rollout_id,
        "device_id": offer.device_id,
        "running": offer.running,
        "older": list(offer.older),
        "state": State.ALREADY_INSTALLED if installed else State.PENDING,
        "superseded": SUPERSEDED,
        "offering": list(OFFERING),
        "open": [state.value for state in OPEN],
        "now": now,
    }
    await connection.execute(_OFFER, parameters)
    cursor = await connection.execute(_FIND, parameters)
    row = await cursor.fetchone()
    return Deployment(*row) if row else None
