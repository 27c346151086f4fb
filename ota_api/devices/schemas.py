"""Devices on the wire."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from ota_api.fields import DeviceModel, Line, Location, NewDeviceId, RequestBody
from zenthos_core.messages import DeviceStatus

MAX_BULK_BYTES: Final = 1024 * 1024
MAX_BULK_ROWS: Final = 2_000
MAX_TAGS: Final = 20

DeviceType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.:-]{0,62}$")]
Tags = Annotated[
    list[Tag], Field(max_length=MAX_TAGS), AfterValidator(lambda tags: sorted(set(tags)))
]
FactorySecret = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{22,128}$")]
"""Random, at least 128 bits (22 characters of base64): no dictionary holds it."""

ReportInterval = Annotated[
    float,
    Field(gt=0, le=7 * 86_400, description="Seconds between its reports; three missed: offline."),
]


class DeviceRegistration(RequestBody):
    """A device to register, at a farm named by its id or its name."""

    device_id: NewDeviceId
    device_model: DeviceModel
    device_type: DeviceType
    farm_id: UUID | None = None
    farm_name: Line | None = Field(None, description="Created where there is no such farm yet.")
    location: Location | None = None
    report_interval_s: ReportInterval | None = None
    tags: Tags = Field(default_factory=list)
    factory_secret: FactorySecret | None = Field(
        None, description="With which the device may claim itself, once."
    )

    @model_validator(mode="after")
    def _names_one_farm(self) -> Self:
        if (self.farm_id is None) == (self.farm_name is None):
            raise ValueError("name the farm by either farm_id or farm_name")
        return self


class DeviceUpdate(RequestBody):
    """What to change: a field that is not sent stays, `null` clears it."""

    farm_id: UUID | None = None
    location: Location | None = None
    report_interval_s: ReportInterval | None = None
    tags: Tags | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name a field to change: farm_id, location, report_interval_s or tags")
        for name in ("farm_id", "tags"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class Claim(RequestBody):
    """A device shows that it is the one that left the factory."""

    factory_secret: FactorySecret


class RegisteredDevice(BaseModel):
    """What a device needs to connect; the token is shown only here."""

    device_id: str
    farm_id: UUID
    jwt_token: str = Field(description="Bearer token here, and the password at the broker.")
    expires_at: datetime
    mqtt_broker: str = Field(description="host:port; the user name there is the device_id.")


class BulkRow(BaseModel):
    """What became of a line of the CSV."""

    line: int = Field(description="Of the file; the header is line 1.")
    device_id: str | None
    outcome: Literal["created", "unchanged", "refused"]
    detail: str | None = Field(None, description="Why it was refused, and what to do.")
    jwt_token: str | None = Field(None, description="Of a new device without a factory secret.")


class BulkResult(BaseModel):
    """What became of a CSV of devices."""

    created: int
    unchanged: int
    refused: int
    rows: list[BulkRow]


class Device(BaseModel):
    """A device and its current state, as its messages tell."""

    device_id: str
    device_model: str
    device_type: str
    farm_id: UUID
    tags: list[str]
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
    decommissioned_at: datetime | None
    checked_in_at: datetime | None = Field(
        None, description="When it last asked for the latest firmware; some seconds late."
    )
    model_checked_in_at: datetime | None = Field(
        None, description="When it last asked for the latest model; some seconds late."
    )
    pending_update: str | None = Field(
        None, description="Version that it has been offered and has not done with."
    )
