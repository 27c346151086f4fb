"""Farms on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from ota_api.fields import Line, Location, RequestBody


class FarmCreation(RequestBody):
    """A farm to create; the name is its identity."""

    name: Line
    owner: Line | None = None
    location: Location | None = None
    total_area_hectares: Annotated[float, Field(gt=0, le=1e7)] | None = None
    crop_type: Line | None = None


class Farm(BaseModel):
    """A farm."""

    id: UUID
    name: str
    owner: str
    location: Location | None
    total_area_hectares: float | None
    crop_type: str | None
    created_at: datetime
