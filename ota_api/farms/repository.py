"""Farms in the operational database."""

from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ota_api.farms.schemas import Farm, FarmCreation
from ota_api.fields import Location

_COLUMNS: Final = "id, name, owner, latitude, longitude, total_area_hectares, crop_type, created_at"


class FarmRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, farm: FarmCreation) -> Farm | None:
        """The new farm, or None where there is one of that name."""
        values = farm.model_dump() | {
            "owner": farm.owner or "",
            "latitude": farm.location and farm.location.lat,
            "longitude": farm.location and farm.location.lon,
        }
        return await self._one(
            "INSERT INTO farms (name, owner, latitude, longitude, total_area_hectares, crop_type)"
            " VALUES (%(name)s, %(owner)s, %(latitude)s, %(longitude)s, %(total_area_hectares)s,"
            f" %(crop_type)s) ON CONFLICT (name) DO NOTHING RETURNING {_COLUMNS}",
            values,
        )

    async def find(self, farm_id: UUID) -> Farm | None:
        """By id."""
        return await self._one(f"SELECT {_COLUMNS} FROM farms WHERE id = %(id)s", {"id": farm_id})

    async def find_by_name(self, name: str) -> Farm | None:
        """By name."""
        return await self._one(
            f"SELECT {_COLUMNS} FROM farms WHERE name = %(name)s", {"name": name}
        )

    async def page(self, after: str, limit: int) -> list[Farm]:
        """Farms by name, from the first after `after`."""
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM farms WHERE name > %s ORDER BY name LIMIT %s",
                (after, limit),
            )
            return [_farm(row) for row in await cursor.fetchall()]

    async def _one(self, query: str, values: dict[str, Any]) -> Farm | None:
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query.encode(), values)
            row = await cursor.fetchone()
        return _farm(row) if row else None


def _farm(row: dict[str, Any]) -> Farm:
    latitude, longitude = row.pop("latitude"), row.pop("longitude")
    located = latitude is not None and longitude is not None
    return Farm(**row, location=Location(lat=latitude, lon=longitude) if located else None)
