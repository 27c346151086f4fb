"""What people do with alerts.

1. Acknowledged: somebody looks after it. It stays, and counts on when it is raised again.
2. Resolved: it is over. Raised again, it is another alert.
3. Doing either again changes nothing; who came first is kept. A resolved alert cannot be
   acknowledged any more.
"""

from datetime import datetime
from uuid import UUID

from ota_api.alerts.repository import AlertRepository
from ota_api.alerts.schemas import AlertView
from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from zenthos_core.errors import ConflictError, NotFoundError


async def get_alert(alerts: AlertRepository, alert_id: UUID, *, lock: bool = False) -> AlertView:
    """The alert; NotFoundError where there is none."""
    found = await alerts.find(alert_id, lock=lock)
    if found is None:
        raise NotFoundError(f"no alert {alert_id}: GET /alerts lists them")
    return found


async def acknowledge_alert(
    alerts: AlertRepository, trail: AuditTrail, now: datetime, alert_id: UUID
) -> AlertView:
    """Rules 1 and 3.

    Raises:
        NotFoundError, ConflictError: where there is none, or it is over.
    """
    alert = await get_alert(alerts, alert_id, lock=True)
    if alert.acknowledged_at is not None:
        return alert
    if alert.resolved_at is not None:
        raise ConflictError(f"alert {alert_id} is resolved: there is nothing to look after")
    await alerts.mark(alert_id, "acknowledged", now, trail.actor.name)
    return await _record(alerts, trail, Action.ALERT_ACKNOWLEDGE, alert)


async def resolve_alert(
    alerts: AlertRepository, trail: AuditTrail, now: datetime, alert_id: UUID
) -> AlertView:
    """Rules 2 and 3; NotFoundError where there is none."""
    alert = await get_alert(alerts, alert_id, lock=True)
    if alert.resolved_at is not None:
        return alert
    await alerts.mark(alert_id, "resolved", now, trail.actor.name)
    return await _record(alerts, trail, Action.ALERT_RESOLVE, alert)


async def _record(
    alerts: AlertRepository, trail: AuditTrail, action: Action, before: AlertView
) -> AlertView:
    after = await get_alert(alerts, before.id)
    about = {"alert_type": after.alert_type, "subject": after.subject, "state": after.state}
    await trail.record(action, f"alert {before.id}", before={"state": before.state}, after=about)
    return after
