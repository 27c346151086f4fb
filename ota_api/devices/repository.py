"""Devices in the operational database."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ota_api.devices.filters import DeviceFilter
from ota_api.devices.schemas import Device, DeviceRegistration
from ota_api.fields import Location

_COLUMNS: Final = (
    "id AS device_id, device_model, device_type, farm_id, tags, latitude, longitude,"
    " nullif(status, 'unknown') AS status, last_seen, last_reading, firmware_version,"
    " model_version, battery_voltage, signal_strength, uptime_seconds, free_heap_bytes,"
    " boot_count, reset_reason, report_interval_s, observed_interval_s, missing_readings,"
    " created_at, decommissioned_at, checked_in_at, model_checked_in_at,"
    " (SELECT r.version FROM deployments p JOIN rollouts o ON o.id = p.rollout_id"
    " JOIN releases r ON r.id = o.release_id WHERE p.device_id = devices.id"
    " AND p.state IN ('pending', 'downloading', 'installing', 'rebooting')"
    " ORDER BY p.id DESC LIMIT 1) AS pending_update"
)


class DeviceRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def insert(self, device: DeviceRegistration, farm_id: UUID) -> bool:
        """Whether the device is new; one that exists is left as it is."""
        location = device.location
        cursor = await self.connection.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude,"
            " report_interval_s, tags) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (id) DO NOTHING",
            (
                device.device_id,
                farm_id,
                device.device_model,
                device.device_type,
                location and location.lat,
                location and location.lon,
                device.report_interval_s,
                device.tags,
            ),
        )
        return cursor.rowcount == 1

    async def find(self, device_id: str) -> Device | None:
        """By id."""
        rows = await self._select("WHERE id = %(id)s", {"id": device_id})
        return rows[0] if rows else None

    async def find_and_lock(self, device_id: str) -> Device | None:
        """By id, keeping others that change it waiting until the transaction ends."""
        rows = await self._select("WHERE id = %(id)s FOR UPDATE", {"id": device_id})
        return rows[0] if rows else None

    async def page(self, after: str, limit: int, wanted: DeviceFilter) -> list[Device]:
        """Devices by id, from the first after `after`, that the filter lets through."""
        conditions = " AND ".join(["id > %(after)s", *wanted.conditions()])
        return await self._select(
            f"WHERE {conditions} ORDER BY id LIMIT %(limit)s",
            {"after": after, "limit": limit, **wanted.parameters()},
        )

    async def update(self, device_id: str, values: dict[str, Any]) -> None:
        """Set columns by their names."""
        assignments = ", ".join(f"{column} = %({column})s" for column in values)
        query = f"UPDATE devices SET {assignments} WHERE id = %(id)s"
        await self.connection.execute(query.encode(), {**values, "id": device_id})

    async def factory_secret_hash(self, device_id: str) -> bytes | None:
        """Of a secret that has not been used."""
        cursor = await self.connection.execute(
            "SELECT factory_secret_hash FROM devices WHERE id = %s", (device_id,)
        )
        row = await cursor.fetchone()
        return row[0] if row else None

    async def use_factory_secret(self, device_id: str, secret_hash: bytes) -> UUID | None:
        """The farm of the device, or None where that is not the secret, or not any more."""
        cursor = await self.connection.execute(
            "UPDATE devices SET factory_secret_hash = NULL"
            " WHERE id = %s AND factory_secret_hash = %s RETURNING farm_id",
            (device_id, secret_hash),
        )
        row = await cursor.fetchone()
        return row[0] if row else None

    async def token_seconds(self, device_id: str) -> tuple[int, int]:
        """Epoch seconds: before the first, what was issued to the device is void; at the second its
        newest token was issued. 0 for none."""
        cursor = await self.connection.execute(
            "SELECT coalesce(extract(epoch FROM tokens_valid_from), 0),"
            " coalesce(extract(epoch FROM token_issued_at), 0) FROM devices WHERE id = %s",
            (device_id,),
        )
        row = await cursor.fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    async def void_tokens_before(self, device_id: str, second: int) -> None:
        """What was issued to the device before that epoch second."""
        await self.update(device_id, {"tokens_valid_from": datetime.fromtimestamp(second, UTC)})

    async def note_token(self, device_id: str, second: int) -> None:
        """One was issued at that epoch second."""
        await self.update(device_id, {"token_issued_at": datetime.fromtimestamp(second, UTC)})

    async def _select(self, clauses: str, values: dict[str, Any]) -> list[Device]:
        query = f"SELECT {_COLUMNS} FROM devices {clauses}"
        async with self.connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), values)
            return [_device(row) for row in await cursor.fetchall()]


def _device(row: dict[str, Any]) -> Device:
    latitude, longitude = row.pop("latitude"), row.pop("longitude")
    located = latitude is not None and longitude is not None
    return Device(**row, location=Location(lat=latitude, lon=longitude) if located else None)
