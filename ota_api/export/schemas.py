"""Exports on the wire."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

DeviceId = Annotated[str, StringConstraints(max_length=63, pattern=r"^[^\x00]+$")]


class ExportFormat(StrEnum):
    """What an answer is: a table in one file, or the objects of bronze as they are stored."""

    PARQUET = "parquet"
    CSV = "csv"
    TAR = "tar"


MEDIA_TYPES = {
    ExportFormat.PARQUET: "application/vnd.apache.parquet",
    ExportFormat.CSV: "text/csv; charset=utf-8; header=present",
    ExportFormat.TAR: "application/x-tar",
}


class Selection(BaseModel):
    """What of a table: UTC days, both included, and devices; all where nothing is said."""

    model_config = ConfigDict(extra="forbid")

    first: date | None = Field(None, alias="from", description="First day; the oldest by default.")
    last: date | None = Field(None, alias="to", description="Last day; the newest by default.")
    device: list[DeviceId] = Field(
        default=[], max_length=1000, description="Of these devices alone; may be repeated."
    )
    format: ExportFormat | None = Field(
        None, description="parquet, the default, or csv; tar for bronze."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first and self.last and self.first > self.last:
            raise ValueError(f"from {self.first} lies after to {self.last}: swap them")
        return self

    def holds(self, day: date) -> bool:
        """Whether a day is wanted."""
        return (self.first or day) <= day <= (self.last or day)

    def describe_range(self) -> str:
        """For a person."""
        if self.first is None and self.last is None:
            return "at any time"
        return f"from {self.first or 'the beginning'} to {self.last or 'today'}"


class ExportTable(BaseModel):
    """A table that may be exported."""

    name: str
    what: str
    range_of: str | None = Field(description="What `from` and `to` are about; null: not taken.")
    formats: list[ExportFormat]
