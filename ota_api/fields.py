"""Types of fields and path parameters that several features share."""

from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from zenthos_core.broker_accounts import SERVICE_PREFIX
from zenthos_core.topics import DEVICE_ID, DEVICE_MODEL

PRINTABLE: Final = r"^[^\x00-\x1f\x7f\s](?:[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s])?$"
"""One line, no blanks around it: no control characters, which no database text or log wants."""


class RequestBody(BaseModel):
    """A body from outside: a misspelt field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _not_a_service(device_id: str) -> str:
    if device_id.startswith(SERVICE_PREFIX):
        raise ValueError(f"ids that begin with {SERVICE_PREFIX} name services: choose another")
    return device_id


NewDeviceId = Annotated[
    str, StringConstraints(pattern=f"^{DEVICE_ID.pattern}$"), AfterValidator(_not_a_service)
]
"""A device's id is its user name at the broker, where services have accounts too."""
DeviceModel = Annotated[str, StringConstraints(pattern=f"^{DEVICE_MODEL.pattern}$")]
Line = Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)]

DeviceIdPath = Annotated[str, Path(pattern=f"^{DEVICE_ID.pattern}$")]
DeviceModelPath = Annotated[str, Path(pattern=f"^{DEVICE_MODEL.pattern}$")]

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]


class Location(RequestBody):
    """Degrees, WGS 84."""

    lat: Latitude
    lon: Longitude
