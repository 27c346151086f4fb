"""Devices in the operational database."""

from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ota_api.devices.schemas import Device, DeviceRegistration
from ota_api.fields import Location

_COLUMNS: Final = (
    "id AS device_id, device_model, device_type, farm_id, latitude, longitude,"
    " nullif(status, 'unknown') AS status, last_seen, last_reading, firmware_version,"
    " model_version, battery_voltage, signal_strength, uptime_seconds, free_heap_bytes,"
    " boot_count, reset_reason, report_interval_s, observed_interval_s, missing_readings,"
    " created_at"
)


class DeviceRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, device: DeviceRegistration, farm_id: UUID) -> bool:
        """Whether the device is new; one that exists is left as it is."""
        location = device.location
        cursor = await self._connection.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude,"
            " report_interval_s) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
            (
                device.device_id,
                farm_id,
                device.device_model,
                device.device_type,
                location and location.lat,
                location and location.lon,
                device.report_interval_s,
            ),
        )
        return cursor.rowcount == 1

    async def find(self, device_id: str) -> Device | None:
        """By id."""
        rows = await self._select("WHERE id = %(id)s", {"id": device_id})
        return rows[0] if rows else None

    async def find_and_lock(self, device_id: str) -> Device | None:
        """By id, keeping other registrations of it waiting until the transaction ends."""
        rows = await self._select("WHERE id = %(id)s FOR UPDATE", {"id": device_id})
        return rows[0] if rows else None

    async def page(
        self, after: str, limit: int, filters: dict[str, str | UUID | None]
    ) -> list[Device]:
        """Devices by id, from the first after `after`, that equal the filters that are given."""
        given = {column: value for column, value in filters.items() if value is not None}
        conditions = " AND ".join(["id > %(after)s", *(f"{c} = %({c})s" for c in given)])
        return await self._select(
            f"WHERE {conditions} ORDER BY id LIMIT %(limit)s",
            {"after": after, "limit": limit, **given},
        )

    async def _select(self, clauses: str, values: dict[str, Any]) -> list[Device]:
        query = f"SELECT {_COLUMNS} FROM devices {clauses}"
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), values)
            return [_device(row) for row in await cursor.fetchall()]


def _device(row: dict[str, Any]) -> Device:
    latitude, longitude = row.pop("latitude"), row.pop("longitude")
    located = latitude is not None and longitude is not None
    return Device(**row, location=Location(lat=latitude, lon=longitude) if located else None)
