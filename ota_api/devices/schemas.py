"""Devices on the wire."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, model_validator

from ota_api.fields import DeviceModel, Line, Location, NewDeviceId, RequestBody
from zenthos_core.messages import DeviceStatus

DeviceType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class DeviceRegistration(RequestBody):
    """A device to register, at a farm named by its id or its name."""

    device_id: NewDeviceId
    device_model: DeviceModel
    device_type: DeviceType
    farm_id: UUID | None = None
    farm_name: Line | None = Field(None, description="Created where there is no such farm yet.")
    location: Location | None = None
    report_interval_s: float | None = Field(
        None, gt=0, le=7 * 86_400, description="Seconds between its reports; three missed: offline."
    )

    @model_validator(mode="after")
    def _names_one_farm(self) -> Self:
        if (self.farm_id is None) == (self.farm_name is None):
            raise ValueError("name the farm by either farm_id or farm_name")
        return self


class RegisteredDevice(BaseModel):
    """What a device needs to connect; the token is shown only here."""

    device_id: str
    farm_id: UUID
    jwt_token: str = Field(description="Bearer token here, and the password at the broker.")
    expires_at: datetime
    mqtt_broker: str = Field(description="host:port; the user name there is the device_id.")


class Device(BaseModel):
    """A device and its current state, as its messages tell."""

    device_id: str
    device_model: str
    device_type: str
    farm_id: UUID
    location: Location | None
    status: DeviceStatus | None = Field(description="Null until the device has been heard of.")
    last_seen: datetime | None
    last_reading: datetime | None
    firmware_version: str | None
    model_version: str | None
    battery_voltage: float | None = Field(description="V")
    signal_strength: float | None = Field(description="dBm")
    uptime_seconds: float | None
    free_heap_bytes: int | None
    boot_count: int | None
    reset_reason: str | None
    report_interval_s: float | None = Field(description="As registered.")
    observed_interval_s: float | None = Field(description="At which it has been seen to report.")
    missing_readings: int = Field(description="Numbers of its own count that have not come.")
    created_at: datetime
