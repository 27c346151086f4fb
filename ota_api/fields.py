"""Types of fields and path parameters that several features share."""

from typing import Annotated, Final

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from zenthos_core.topics import DEVICE_ID, DEVICE_MODEL

PRINTABLE: Final = r"^[^\x00-\x1f\x7f\s](?:[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\s])?$"
"""One line, no blanks around it: no control characters, which no database text or log wants."""


class RequestBody(BaseModel):
    """A body from outside: a misspelt field is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


DeviceId = Annotated[str, StringConstraints(pattern=f"^{DEVICE_ID.pattern}$")]
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
