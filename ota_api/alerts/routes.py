"""Alerts: users see them, operators look after them."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from ota_api.alerts.repository import AlertFilter, AlertRepository
from ota_api.alerts.schemas import AlertState, AlertView, Severity
from ota_api.alerts.service import acknowledge_alert, get_alert, resolve_alert
from ota_api.auth import Operator, Trail, User
from ota_api.fields import Line
from ota_api.moments import Moment
from ota_api.pagination import Limit, Page, cut_page
from ota_api.resources import Opened, Transaction

router = APIRouter(tags=["alerts"])


async def _filter(
    *,
    state: AlertState | None = None,
    severity: Severity | None = None,
    alert_type: Annotated[Line | None, Query()] = None,
    farm_id: UUID | None = None,
    device_id: Annotated[Line | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="Raised then or later.")] = None,
) -> AlertFilter:
    return AlertFilter(
        state=state,
        severity=severity,
        alert_type=alert_type,
        farm_id=farm_id,
        device_id=device_id,
        since=since,
    )


@router.get("/alerts")
async def get_alerts(
    *,
    _: User,
    connection: Transaction,
    wanted: Annotated[AlertFilter, Depends(_filter)],
    after: UUID | None = None,
    limit: Limit = 100,
) -> Page[AlertView]:
    """Alerts, the newest first."""
    found = await AlertRepository(connection).page(after, limit + 1, wanted)
    return cut_page(found, limit, lambda alert: str(alert.id))


@router.get("/alerts/{alert_id}")
async def get_one_alert(alert_id: UUID, _: User, connection: Transaction) -> AlertView:
    """An alert."""
    return await get_alert(AlertRepository(connection), alert_id)


@router.post("/alerts/{alert_id}/acknowledge")
async def post_alert_acknowledge(
    alert_id: UUID, _: Operator, trail: Trail, resources: Opened, connection: Transaction
) -> AlertView:
    """Say that somebody looks after it; done again, it stays as it is."""
    now = datetime.fromtimestamp(resources.clock(), UTC)
    return await acknowledge_alert(AlertRepository(connection), trail, now, alert_id)


@router.post("/alerts/{alert_id}/resolve")
async def post_alert_resolve(
    alert_id: UUID, _: Operator, trail: Trail, resources: Opened, connection: Transaction
) -> AlertView:
    """Say that it is over; raised again, it is another alert."""
    now = datetime.fromtimestamp(resources.clock(), UTC)
    return await resolve_alert(AlertRepository(connection), trail, now, alert_id)
