"""A release is offered to a device: from now on it has a part in the rollout.

1. There is one deployment for a rollout and device, however often and by however many at once it
   is offered.
2. A device that reports to run the version has it installed already; not so where it has begun with
   another version since, of an older release in the slot, that nothing has proven: what it reports
   may be of before that.
3. A newer offer ends the open deployments of older releases in the slot: they are superseded. One
   that was superseded is taken up again when its release is the newest once more; so is one that
   timed out before the device began, when the device returns.
4. A rollout that was stopped in this moment offers nothing, nor does one whose release was
   withdrawn, nor is anything offered to a device
   that was decommissioned: their rows are read again, under locks that wait for whoever does that.
5. Rollouts and devices are locked before deployments, as elsewhere.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from ota_api.rollouts.transitions import DONE, OPEN, SUPERSEDED, UNDER_WAY, UNTRIED, State

_OFFER: Final = """
WITH rollout AS (
  SELECT id, phase FROM rollouts WHERE id = ANY(%(rollout_ids)s) AND state = ANY(%(offering)s)
  ORDER BY id FOR SHARE
), device AS (
  SELECT id FROM devices WHERE id = ANY(%(device_ids)s) AND decommissioned_at IS NULL
  ORDER BY id FOR KEY SHARE
), older AS (
  SELECT newer_id, device_id, older_id
  FROM unnest(%(newer_ids)s::uuid[], %(owners)s::text[], %(older_ids)s::uuid[])
    AS o (newer_id, device_id, older_id)
), doubtful AS (
  SELECT o.newer_id, o.device_id, l.version FROM older o
  JOIN deployments d ON d.device_id = o.device_id AND d.rollout_id = o.older_id
  JOIN rollouts r ON r.id = d.rollout_id JOIN releases l ON l.id = r.release_id
  WHERE (d.state = ANY(%(under_way)s) OR d.state IN ('timed_out', 'aborted') AND EXISTS (
      SELECT FROM deployment_events e
      WHERE e.deployment_id = d.id AND e.state = ANY(%(under_way)s)))
    AND NOT EXISTS (
      SELECT FROM deployments p JOIN rollouts pr ON pr.id = p.rollout_id
      JOIN releases pl ON pl.id = pr.release_id
      WHERE p.device_id = d.device_id AND p.state = ANY(%(done)s) AND p.changed_at > d.changed_at
        AND (pl.kind = 'model') = (l.kind = 'model') AND (l.kind <> 'model' OR pl.name = l.name))
), offered AS (
  INSERT INTO deployments AS d
    (rollout_id, device_id, phase, state, previous_version, offered_at, changed_at)
  SELECT r.id, o.device_id, r.phase,
    CASE WHEN EXISTS (SELECT FROM doubtful u WHERE u.newer_id = r.id
      AND u.device_id = o.device_id AND u.version <> o.running) THEN 'pending' ELSE o.state END,
    o.running, %(now)s, %(now)s
  FROM unnest(%(rollout_ids)s::uuid[], %(device_ids)s::text[], %(states)s::text[],
    %(running)s::text[]) AS o (rollout_id, device_id, state, running)
  JOIN rollout r ON r.id = o.rollout_id JOIN device ON device.id = o.device_id
  ORDER BY o.device_id, r.id
  ON CONFLICT (rollout_id, device_id) DO UPDATE SET
    state = excluded.state, phase = excluded.phase, stage = NULL, reason = NULL,
    previous_version = excluded.previous_version, confirmed_at = NULL,
    offered_at = excluded.offered_at, changed_at = excluded.changed_at
    WHERE d.state IN ('aborted', 'timed_out') AND d.reason = ANY(%(untried)s)
  RETURNING id, rollout_id, device_id, state, NULL::text AS reason
), replaced AS (
  SELECT d.id FROM deployments d
  JOIN older o ON d.device_id = o.device_id AND d.rollout_id = o.older_id
  JOIN rollout r ON r.id = o.newer_id JOIN device ON device.id = d.device_id
  WHERE d.state = ANY(%(open)s) ORDER BY d.id FOR UPDATE OF d
), superseded AS (
  UPDATE deployments d SET state = 'aborted', reason = %(superseded)s, changed_at = %(now)s
  FROM replaced WHERE d.id = replaced.id
  RETURNING d.id, d.state, d.reason
)
INSERT INTO deployment_events (deployment_id, at, state, reason)
SELECT id, %(now)s, state, reason FROM offered
UNION ALL SELECT id, %(now)s, state, reason FROM superseded
"""
_FIND: Final = """
SELECT d.device_id, d.id, d.rollout_id, d.state, d.reason
FROM unnest(%(rollout_ids)s::uuid[], %(device_ids)s::text[]) AS o (rollout_id, device_id)
JOIN deployments d USING (rollout_id, device_id) JOIN rollouts r ON r.id = d.rollout_id
JOIN releases l ON l.id = r.release_id
WHERE r.state = ANY(%(offering)s) AND l.withdrawn_at IS NULL
"""
OFFERING: Final = ("running", "finished")


class Deployment(msgspec.Struct, frozen=True):
    """The device's part in a rollout."""

    id: int
    rollout_id: UUID
    state: str
    reason: str | None = None

    @property
    def untried(self) -> bool:
        """Whether it ended before the device had begun, or made place for a newer one."""
        return self.state in {State.ABORTED, State.TIMED_OUT} and self.reason in UNTRIED


class Offer(msgspec.Struct, frozen=True):
    """Who is offered what; `older` are rollouts of older releases in the slot."""

    rollout_id: UUID
    device_id: str
    version: str
    running: str | None
    older: Sequence[UUID] = ()

    @property
    def state(self) -> State:
        """Rule 2."""
        return State.ALREADY_INSTALLED if self.running == self.version else State.PENDING


async def record_offers(
    connection: AsyncConnection, now: datetime, offers: Sequence[Offer]
) -> list[Deployment | None]:
    """The deployments there are now, in the order of the offers; None by rule 4."""
    wanted = {(offer.rollout_id, offer.device_id): offer for offer in offers}.values()
    older = [(o.rollout_id, o.device_id, rollout) for o in wanted for rollout in o.older]
    parameters = {
        "rollout_ids": [offer.rollout_id for offer in wanted],
        "device_ids": [offer.device_id for offer in wanted],
        "states": [offer.state for offer in wanted],
        "running": [offer.running for offer in wanted],
        "newer_ids": [newer for newer, _, _ in older],
        "owners": [device_id for _, device_id, _ in older],
        "older_ids": [rollout_id for _, _, rollout_id in older],
        "superseded": SUPERSEDED,
        "untried": list(UNTRIED),
        "offering": list(OFFERING),
        "open": [state.value for state in OPEN],
        "under_way": [state.value for state in UNDER_WAY],
        "done": [state.value for state in DONE],
        "now": now,
    }
    await connection.execute(_OFFER, parameters)
    cursor = await connection.execute(_FIND, parameters)
    found = {(row[2], row[0]): Deployment(*row[1:]) for row in await cursor.fetchall()}
    return [found.get((offer.rollout_id, offer.device_id)) for offer in offers]
