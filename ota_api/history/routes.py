"""History of devices, for users and for the device itself."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from ota_api.auth import Known, check_own
from ota_api.fields import DeviceIdPath
from ota_api.history.fields import parse_fields
from ota_api.history.merge import Cursor
from ota_api.history.repository import Question
from ota_api.history.schemas import MAX_POINTS, AskedResolution, DeviceHistory
from ota_api.history.service import read_history
from ota_api.moments import Moment
from ota_api.pagination import After
from ota_api.resources import Opened, Transaction
from zenthos_core.errors import InvalidInputError

router = APIRouter(tags=["analytics"])


@router.get("/devices/{device_id}/history")
async def get_device_history(
    *,
    device_id: DeviceIdPath,
    identity: Known,
    resources: Opened,
    connection: Transaction,
    start: Annotated[Moment | None, Query(description="A day before end by default.")] = None,
    end: Annotated[Moment | None, Query(description="Not included; now by default.")] = None,
    resolution: AskedResolution = AskedResolution.AUTO,
    fields: Annotated[
        str | None, Query(max_length=300, description="Sensors, with commas; all by default.")
    ] = None,
    after: After | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS)] = MAX_POINTS,
) -> DeviceHistory:
    """What a device has reported: readings, or statistics by hour or day; the oldest first."""
    check_own(identity, device_id)
    if after is not None and (start is None or end is None):
        raise InvalidInputError("with after, send start and end as the first answer has them")
    until = end or datetime.fromtimestamp(resources.clock(), UTC)
    asked = Question(
        device_id=device_id,
        start=start or until - timedelta(days=1),
        end=until,
        fields=parse_fields(fields),
        after=Cursor.decode(after) if after is not None else None,
        limit=limit,
    )
    return await read_history(resources, connection, asked, resolution)
