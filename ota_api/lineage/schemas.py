"""Lineage on the wire."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from ota_api.pagination import Page


class Days(BaseModel):
    """Consecutive days."""

    first: date
    last: date


class BuildOfPartition(BaseModel):
    """When a partition was built, from `etl_runs`."""

    partition: str
    finished_at: datetime
    run_id: str
    rows_in: int
    rows_out: int
    output_checksum: str


class OpenRollout(BaseModel):
    """A rollout of a release that has not ended."""

    id: UUID
    device_model: str
    state: str
    phase: int


class Dataset(BaseModel):
    """A training set, as the manifest names it."""

    sha256: str | None
    partitions: str


class ImpactedRelease(BaseModel):
    """A release that was trained on what is asked about."""

    id: UUID
    name: str
    version: str
    release_counter: int
    device_models: list[str]
    state: str = Field(description="offered, not_offered, expired or withdrawn.")
    dataset: Dataset
    mlflow_model: str | None
    trained: datetime = Field(description="When its manifest was signed.")
    days: list[Days] = Field(description="Of its training set that are touched.")
    certain: bool = Field(
        description="False where the training set has gaps that could lie on those days."
    )
    open_rollouts: list[OpenRollout]
    deployments: dict[str, int] = Field(description="By state.")
    devices_running: int
    predictions: int
    first_prediction: datetime | None
    last_prediction: datetime | None


class DeviceRunning(BaseModel):
    """A device in use that says it runs one of the releases."""

    device_id: str
    farm_id: UUID
    device_model: str
    model_version: str
    last_seen: datetime | None


class Impact(BaseModel):
    """What was made of some data, and who uses it."""

    asset: str
    start: datetime
    end: datetime = Field(description="Not included.")
    reading_days: list[Days]
    training_days: list[Days] = Field(description="Rows of the training set that are touched.")
    builds: list[BuildOfPartition] = Field(description="Of the asset, the newest of each day.")
    releases: list[ImpactedRelease] = Field(description="The newest first.")
    devices_running: int
    devices: Page[DeviceRunning]


class Prediction(BaseModel):
    """What a device has predicted."""

    message_id: UUID
    device_id: str
    time: datetime
    received_at: datetime
    model_version: str
    result: Any
    confidence: float
    features: list[float | None] | None = Field(description="The model's inputs, in their order.")


class PredictingRelease(BaseModel):
    """The release that predicted, as its signed manifest describes it."""

    id: UUID
    name: str
    version: str
    sha256: str
    key_id: str
    withdrawn: bool
    lineage: dict[str, Any]


class BronzeObject(BaseModel):
    """An object of the archive that holds readings of those days."""

    object_key: str
    sha256: str
    rows: int = Field(description="Readings of those days in it.")


class Readings(BaseModel):
    """Readings behind something: how many are archived, and the routes that have them."""

    days: Days
    archived: int
    objects: int
    first_objects: list[BronzeObject] = Field(description="At most 200, by day.")
    links: list[str]


class PredictionTrace(BaseModel):
    """A prediction back to its readings; null where that is not known any more, or never was."""

    prediction: Prediction
    release: PredictingRelease | None
    inputs: Readings = Field(description="The device's readings that its inputs can be made of.")
    training: Readings | None = Field(description="All readings that the model can have seen.")
