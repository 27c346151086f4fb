"""What follows upon a failure that a device reports, by whatever protocol."""

import logging
from datetime import UTC, datetime
from uuid import UUID

import psycopg

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import SYSTEM_ROLE, Actor, AuditTrail
from ota_api.resources import Resources
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.service import Rollouts
from zenthos_core.errors import ZenthosError

_logger = logging.getLogger(__name__)


async def halt_if_failing(resources: Resources, rollout_id: UUID) -> None:
    """After a failure, in a transaction of its own: a bad release does not wait for the sensor.

    Of many failures at once one waits for the rollout's lock and then sees them all.
    """
    if rollout_id in resources.halting:
        return
    resources.halting.add(rollout_id)
    now = datetime.fromtimestamp(resources.clock(), UTC)
    try:
        async with resources.pool.connection() as connection:
            trail = AuditTrail(AuditRepository(connection), Actor("ota-api", SYSTEM_ROLE))
            rollouts = Rollouts(RolloutRepository(connection), trail, now, resources.release_keys)
            rollout = await rollouts.find(rollout_id, lock=True)
            resources.halting.discard(rollout_id)
            await rollouts.halt(rollout)
    except (ZenthosError, psycopg.Error):
        _logger.exception("could not evaluate rollout %s after a failure", rollout_id)
    finally:
        resources.halting.discard(rollout_id)
