"""Alerts on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class AlertState(StrEnum):
    """How far people have got with it."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertView(BaseModel):
    """What somebody should look at."""

    id: UUID
    alert_type: str
    severity: Severity
    state: AlertState
    subject: str = Field(description="What it is about, such as `device field-1`.")
    device_id: str | None
    farm_id: UUID | None
    rollout_id: UUID | None
    message: str
    evidence: dict[str, Any] = Field(description="Of the last time it was raised.")
    occurrences: int = Field(description="How often it was raised while it was not resolved.")
    created_at: datetime
    last_raised_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None
    resolved_by: str | None
