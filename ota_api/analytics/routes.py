"""Summaries for users."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from ota_api.analytics.schemas import FarmSummary
from ota_api.analytics.service import summarise_farm
from ota_api.auth import User
from ota_api.moments import Day
from ota_api.resources import Opened, Transaction

router = APIRouter(tags=["analytics"])


@router.get("/analytics/farm/{farm_id}/summary")
async def get_farm_summary(
    *,
    farm_id: UUID,
    _: User,
    resources: Opened,
    connection: Transaction,
    start_date: Annotated[Day, Query(description="First UTC day.")],
    end_date: Annotated[Day, Query(description="Last UTC day, at most 400 days in all.")],
) -> FarmSummary:
    """What a farm was like over some days, today included."""
    return await summarise_farm(resources, connection, farm_id, start_date, end_date)
