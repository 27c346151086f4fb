"""Lineage: what bad data has led to, and what a prediction is made of."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from ota_api.auth import Operator
from ota_api.fields import Line
from ota_api.lineage.impact import find_impact
from ota_api.lineage.partitions import Period, check_asset, parse_partition, period_of
from ota_api.lineage.schemas import Impact, PredictionTrace
from ota_api.lineage.trace import trace_prediction
from ota_api.moments import Day, check_days
from ota_api.pagination import After, Limit
from ota_api.resources import Opened, Transaction
from zenthos_core.errors import InvalidInputError

router = APIRouter(tags=["lineage"])


async def _period(
    asset: Annotated[Line, Query(description="Such as silver/telemetry_cleaned.")],
    partition: Annotated[
        Line | None, Query(description="A day, or an hour of bronze: 2026-11-23-05:00.")
    ] = None,
    start: Annotated[Day | None, Query(description="First day, in place of a partition.")] = None,
    end: Annotated[Day | None, Query(description="Last day.")] = None,
) -> Period:
    check_asset(asset)
    if partition is not None and start is None and end is None:
        return parse_partition(asset, partition)
    if partition is not None or start is None or end is None:
        raise InvalidInputError("say either partition, or both of start and end")
    check_days(start, end)
    return period_of(start, end)


@router.get("/lineage/impact")
async def get_impact(
    *,
    _: Operator,
    resources: Opened,
    connection: Transaction,
    asset: Annotated[Line, Query()],
    period: Annotated[Period, Depends(_period)],
    after: After = "",
    limit: Limit = 100,
) -> Impact:
    """Releases trained on a partition, their rollouts, devices and predictions."""
    return await find_impact(resources, connection, asset, period, (after, limit))


@router.get("/lineage/prediction/{message_id}")
async def get_prediction(
    message_id: UUID,
    _: Operator,
    connection: Transaction,
    device_id: Annotated[Line | None, Query()] = None,
) -> PredictionTrace:
    """A prediction back to its release, training set and readings."""
    return await trace_prediction(connection, message_id, device_id)
