"""History of a device on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field

from ota_api.planes import MissingDays, Plane

MAX_POINTS: Final = 2_000


class Resolution(StrEnum):
    """How fine the answer is."""

    RAW = "raw"
    HOURLY = "hourly"
    DAILY = "daily"


class AskedResolution(StrEnum):
    """As Resolution; `auto` is the finest with at most MAX_POINTS points."""

    AUTO = "auto"
    RAW = "raw"
    HOURLY = "hourly"
    DAILY = "daily"


class HistoryPoint(BaseModel):
    """A reading, or the statistics of an hour or a day."""

    time: datetime = Field(description="Of the reading, or the begin of the hour or day.")
    plane: Plane
    farm_id: UUID = Field(description="Where the device was then.")
    message_id: UUID | None = Field(None, description="Of a reading.")
    received_at: datetime | None = Field(None, description="Of a reading.")
    clock_suspect: bool | None = Field(
        None, description="Of a reading: its time is that of its receipt."
    )
    late: bool | None = Field(None, description="Of a reading: received over an hour after.")
    sample_count: int | None = Field(None, description="Readings in the hour or day.")
    values: dict[str, float | None]


class HistoryPart(BaseModel):
    """What of this page came from a plane."""

    plane: Plane
    first: datetime
    last: datetime
    points: int


class DeviceHistory(BaseModel):
    """A page of what a device has reported, the oldest first."""

    device_id: str
    resolution: Resolution
    start: datetime
    end: datetime = Field(description="Not included.")
    parts: list[HistoryPart]
    missing: list[MissingDays] = Field(description="Of the whole range.")
    items: list[HistoryPoint]
    next: str | None = Field(
        description="Send as `after`, with the same start and end, for the next page."
    )
