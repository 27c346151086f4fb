"""A farm's summary."""

from datetime import UTC, date, datetime
from uuid import UUID

from psycopg import AsyncConnection

from ota_api.analytics import repository
from ota_api.analytics.schemas import FarmSummary
from ota_api.analytics.summary import add
from ota_api.farms.repository import FarmRepository
from ota_api.moments import check_days, days_between
from ota_api.planes import DAILY, describe_missing, plan_days, read_archived, read_built
from ota_api.resources import Resources
from zenthos_core.errors import NotFoundError


async def summarise_farm(
    resources: Resources, connection: AsyncConnection, farm_id: UUID, first: date, last: date
) -> FarmSummary:
    """From both planes, as ota_api/planes.py has it.

    Raises:
        NotFoundError: where there is no such farm.
        InvalidInputError: for days out of order, or too many.
        UnavailableError: where the analytical database is away.
    """
    check_days(first, last)
    if await FarmRepository(connection).find(farm_id) is None:
        raise NotFoundError(f"no farm {farm_id}: GET /farms lists them")
    days = days_between(first, last)
    today = datetime.fromtimestamp(resources.clock(), UTC).date()
    devices = await repository.farm_devices(connection, farm_id)
    archived = await read_archived(connection, first, last)
    async with resources.analytical.reading() as analytical:
        built = await read_built(analytical, DAILY, days)
        plan = plan_days(days, today, resources.settings.hot_days, built, archived)
        gold = await repository.sum_gold(analytical, farm_id, devices, plan.gold)
    hot = await repository.sum_hot(connection, farm_id, devices, plan.hot)
    in_use, alerts, irrigations = await repository.count_events(connection, farm_id, first, last)
    sums = add([gold, hot])
    return FarmSummary(
        farm_id=farm_id,
        start_date=first,
        end_date=last,
        device_count=in_use,
        devices_reporting=len(sums.devices),
        readings=sums.readings,
        avg_soil_moisture=sums.soil.mean,
        min_soil_moisture=sums.soil.least,
        max_soil_moisture=sums.soil.greatest,
        avg_temperature=sums.temperature.mean,
        min_temperature=sums.temperature.least,
        max_temperature=sums.temperature.greatest,
        min_battery_voltage=sums.battery_min,
        alerts_count=alerts,
        irrigation_events=irrigations,
        days_from_gold=len(plan.gold) - len(plan.missing),
        days_from_hot=len([day for day in plan.hot if day <= today]),
        missing=describe_missing(plan.missing, "not_built"),
    )
