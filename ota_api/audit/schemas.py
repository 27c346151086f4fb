"""The audit log on the wire."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field


class Action(StrEnum):
    """What can be done."""

    FARM_CREATE = "farm.create"
    DEVICE_REGISTER = "device.register"
    DEVICE_UPDATE = "device.update"
    DEVICE_TOKEN = "device.token"  # noqa: S105 - a word of the log
    DEVICE_CLAIM = "device.claim"
    DEVICE_REVOKE = "device.revoke"
    DEVICE_DECOMMISSION = "device.decommission"
    RELEASE_PUBLISH = "release.publish"
    RELEASE_WITHDRAW = "release.withdraw"
    ROLLOUT_CREATE = "rollout.create"
    ROLLOUT_START = "rollout.start"
    ROLLOUT_ADVANCE = "rollout.advance"
    ROLLOUT_PAUSE = "rollout.pause"
    ROLLOUT_RESUME = "rollout.resume"
    ROLLOUT_ABORT = "rollout.abort"
    ROLLOUT_ROLLBACK = "rollout.rollback"
    ROLLOUT_FINISH = "rollout.finish"
    SESSION_START = "session.start"
    SESSION_REFRESH = "session.refresh"
    SESSION_END = "session.end"
    USER_CREATE = "user.create"
    USER_DISABLE = "user.disable"
    USER_ROLE = "user.role"
    USER_PASSWORD = "user.password"  # noqa: S105 - a word of the log


class AuditEntry(BaseModel):
    """One change."""

    id: int
    at: datetime
    actor: str = Field(description="A user, a device, a service; cli:… where without a server.")
    role: str
    session_id: UUID | None = Field(description="The login of the user; null for all others.")
    action: Action
    subject: str = Field(description="What was changed, such as `device field-1`.")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
