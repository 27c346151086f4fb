"""Analytics on the wire."""

from datetime import date
from uuid import UUID

from pydantic import BaseModel, Field

from ota_api.planes import MissingDays


class FarmSummary(BaseModel):
    """A farm over some UTC days; null where nothing was measured."""

    farm_id: UUID
    start_date: date
    end_date: date = Field(description="Included.")
    device_count: int = Field(description="In use at the farm now.")
    devices_reporting: int = Field(description="That sent a reading from the farm in these days.")
    readings: int
    avg_soil_moisture: float | None = Field(description="%")
    min_soil_moisture: float | None
    max_soil_moisture: float | None
    avg_temperature: float | None = Field(description="°C")
    min_temperature: float | None
    max_temperature: float | None
    min_battery_voltage: float | None = Field(description="V")
    alerts_count: int = Field(description="Alerts that began in these days.")
    irrigation_events: int
    days_from_gold: int
    days_from_hot: int
    missing: list[MissingDays]
