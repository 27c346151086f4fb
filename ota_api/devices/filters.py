"""Which devices a list shows.

1. Every filter that is given must hold; without any, all devices in use are shown.
2. Near a point: within `radius_km` along the surface of a sphere of the Earth's mean radius
   (haversine). A device without a location is near nothing.
3. Decommissioned devices are shown only when asked for, and then alone.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

EARTH_RADIUS_KM: Final = 6371.0088
"""Mean radius, IUGG."""

_NEAR: Final = (
    "latitude + longitude IS NOT NULL AND"
    " 2 * %(earth_km)s * asin(sqrt(least(1, (1 - cosd(latitude - %(lat)s)"
    " + cosd(latitude) * cosd(%(lat)s) * (1 - cosd(longitude - %(lon)s))) / 2))) <= %(radius_km)s"
)
"""hav x = (1 - cos x) / 2: exact to a millimetre, and no square that underflows is an error."""


@dataclass(frozen=True)
class Near:
    """A point in degrees, and a radius around it."""

    lat: float
    lon: float
    radius_km: float


@dataclass(frozen=True)
class DeviceFilter:
    """Rules 1 to 3 as SQL over the table `devices`."""

    farm_id: UUID | None = None
    tag: str | None = None
    device_model: str | None = None
    status: str | None = None
    firmware_version: str | None = None
    near: Near | None = None
    decommissioned: bool = False

    def conditions(self) -> list[str]:
        """To be joined by AND."""
        equal = [name for name in self._equals() if self._equals()[name] is not None]
        return [
            f"decommissioned_at IS {'NOT ' if self.decommissioned else ''}NULL",
            *(f"{name} = %({name})s" for name in equal),
            *(["tags @> ARRAY[%(tag)s]"] if self.tag is not None else []),
            *([_NEAR] if self.near is not None else []),
        ]

    def parameters(self) -> dict[str, Any]:
        """For the conditions."""
        near = vars(self.near) if self.near is not None else {}
        return {**self._equals(), "tag": self.tag, **near, "earth_km": EARTH_RADIUS_KM}

    def _equals(self) -> dict[str, Any]:
        return {
            "farm_id": self.farm_id,
            "device_model": self.device_model,
            "status": self.status,
            "firmware_version": self.firmware_version,
        }
