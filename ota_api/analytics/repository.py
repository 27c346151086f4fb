"""What the databases hold of a farm. A device is asked for by name, so that its index is used."""

from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection

from ota_api.alerts.repository import OF_FARM
from ota_api.analytics.summary import Measured, Sums
from ota_api.moments import start_of
from ota_api.planes import plausible

_OF_GOLD: Final = """
SELECT coalesce(sum(sample_count), 0)::bigint, array_agg(DISTINCT device_id),
  sum(soil_avg * sample_count), coalesce(sum(sample_count) FILTER (WHERE soil_avg IS NOT NULL),
  0)::bigint, min(soil_min), max(soil_max),
  sum(temp_avg * sample_count), coalesce(sum(sample_count) FILTER (WHERE temp_avg IS NOT NULL),
  0)::bigint, min(temp_min), max(temp_max), min(battery_min)
FROM telemetry_daily
WHERE farm_id = %(farm_id)s AND device_id = ANY(%(devices)s)
  AND day BETWEEN %(first)s AND %(last)s AND day = ANY(%(days)s)"""
_HOT_COLUMNS: Final = ", ".join(
    [
        "count(*), array_agg(DISTINCT device_id)",
        *(
            plausible(function, sensor)
            for sensor in ("soil_moisture", "temperature")
            for function in ("sum", "count", "min", "max")
        ),
        plausible("min", "battery_voltage"),
    ]
)
_OF_HOT: Final = f"""
SELECT {_HOT_COLUMNS} FROM telemetry_hot
WHERE farm_id = %(farm_id)s AND device_id = ANY(%(devices)s)
  AND time >= %(start)s AND time < %(end)s
  AND (time AT TIME ZONE 'UTC')::date = ANY(%(days)s)"""
_COUNTS: Final = f"""
SELECT
  (SELECT count(*) FROM devices WHERE farm_id = %(farm_id)s AND decommissioned_at IS NULL),
  (SELECT count(*) FROM alerts a
   WHERE {OF_FARM} AND a.created_at >= %(start)s AND a.created_at < %(end)s),
  (SELECT count(*) FROM irrigation_events
   WHERE farm_id = %(farm_id)s AND timestamp >= %(start)s AND timestamp < %(end)s)"""


async def farm_devices(connection: AsyncConnection, farm_id: UUID) -> list[str]:
    """Devices that are, or ever were, at the farm."""
    cursor = await connection.execute(
        "SELECT DISTINCT device_id FROM device_placements WHERE farm_id = %s", (farm_id,)
    )
    return [row[0] for row in await cursor.fetchall()]


async def count_events(
    connection: AsyncConnection, farm_id: UUID, first: date, last: date
) -> tuple[int, int, int]:
    """Devices in use, alerts that began, irrigations."""
    values = {"farm_id": farm_id, **_bounds(first, last)}
    row = await (await connection.execute(_COUNTS.encode(), values)).fetchone()
    devices, alerts, irrigations = row or (0, 0, 0)
    return devices, alerts, irrigations


async def sum_gold(
    analytical: AsyncConnection, farm_id: UUID, devices: list[str], days: list[date]
) -> Sums:
    """Of whole days that gold has built."""
    return await _sums(analytical, _OF_GOLD, farm_id, devices, days)


async def sum_hot(
    connection: AsyncConnection, farm_id: UUID, devices: list[str], days: list[date]
) -> Sums:
    """Of the days that gold has not."""
    return await _sums(connection, _OF_HOT, farm_id, devices, days)


async def _sums(
    connection: AsyncConnection, query: str, farm_id: UUID, devices: list[str], days: list[date]
) -> Sums:
    if not days or not devices:
        return Sums()
    values = {"farm_id": farm_id, "devices": devices, "days": days, **_bounds(days[0], days[-1])}
    row = await (await connection.execute(query.encode(), values)).fetchone()
    if row is None or not row[0]:
        return Sums()
    readings, names, *measured, battery = row
    return Sums(
        readings, frozenset(names), Measured(*measured[:4]), Measured(*measured[4:]), battery
    )


def _bounds(first: date, last: date) -> dict[str, Any]:
    end = start_of(last + timedelta(days=1))
    return {"first": first, "last": last, "start": start_of(first), "end": end}
