"""Rollouts and deployments on the wire."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints, model_validator

from ota_api.devices.schemas import Tag
from ota_api.fields import PRINTABLE, DeviceModel, RequestBody
from ota_api.rollouts.transitions import State

DEFAULT_TIMEOUT_S: Final = 24 * 3600

Percentage = Annotated[float, Field(gt=0, le=100)]
Rate = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Word = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Text = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Version = Annotated[str, StringConstraints(max_length=100, pattern=PRINTABLE)]


class NewRollout(RequestBody):
    """Which devices get a release, and how carefully."""

    release_id: UUID
    device_model: DeviceModel | None = Field(
        None, description="Needed where the release is for several."
    )
    farm_id: UUID | None = None
    tag: Tag | None = None
    phases: list[Percentage] = Field([1, 10, 50, 100], min_length=1, max_length=20)
    control_percentage: Annotated[float, Field(ge=0, le=50)] = 0
    success_threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    error_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    min_devices: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    timeout_s: Annotated[int, Field(ge=60, le=90 * 24 * 3600)] = DEFAULT_TIMEOUT_S
    start: bool = True

    @model_validator(mode="after")
    def _check_phases(self) -> "NewRollout":
        buckets = [round(percentage * 100) for percentage in self.phases]
        if sorted({*buckets, 0})[1:] != buckets:
            raise ValueError("phases must rise, by 0.01 at least, such as [1, 10, 50, 100]")
        return self


class Rollout(BaseModel):
    """A rollout as it stands."""

    id: UUID
    release_id: UUID
    kind: str
    name: str
    version: str
    device_model: str
    farm_id: UUID | None
    tag: str | None
    phases: list[float]
    control_percentage: float
    success_threshold: float
    error_threshold: float
    min_devices: int
    timeout_s: int
    state: str = Field(description="created, running, paused, finished or aborted.")
    phase: int = Field(description="From 1.")
    paused_reason: str | None
    rollback_of: UUID | None
    created_by: str
    created_at: datetime
    started_at: datetime | None
    phase_started_at: datetime | None
    ended_at: datetime | None


class FailureCount(BaseModel):
    """How many devices failed in one way."""

    stage: str | None
    reason: str | None
    devices: int


class DecisionReason(BaseModel):
    """Why; `word` for machines, `text` for people."""

    word: str
    text: str


class LastEvaluation(BaseModel):
    """What was decided last while the rollout ran, and why."""

    at: datetime
    action: str = Field(description="hold, advance, finish or pause.")
    reasons: list[DecisionReason]


class RolloutDetail(Rollout):
    """With its numbers."""

    members: int = Field(description="Devices in the phase.")
    answering: int = Field(description="Members that answer; see the policy.")
    states: dict[str, int] = Field(description="Deployments by state.")
    failures: list[FailureCount] = Field(description="The most frequent first.")
    evaluation: LastEvaluation | None = Field(
        description="The last one, which tells why it waits; null before the first."
    )


class PauseReason(RequestBody):
    """Why somebody stops a rollout."""

    reason: Text = ""


class Rollback(RequestBody):
    """The reissued release that takes devices back."""

    release_id: UUID


class CohortBody(RequestBody):
    """What the readings of some devices are like."""

    devices: Annotated[int, Field(ge=0)]
    readings: Annotated[int, Field(ge=0)]
    gap_rate: Rate | None = None
    range_violation_rate: Rate | None = None
    battery_drop_v_per_day: float | None = None
    inference_confidence: Rate | None = None


class QualityBody(RequestBody):
    """Updated devices beside those that were not."""

    measured_at: Annotated[float, Field(ge=0, description="UTC epoch seconds.")]
    window_s: Annotated[float, Field(gt=0)]
    updated: CohortBody
    control: CohortBody


class Evidence(RequestBody):
    """What the lineage has seen."""

    quality: QualityBody | None = None


class Evaluated(BaseModel):
    """What an evaluation has decided, and upon what."""

    action: str = Field(description="hold, advance, finish or pause.")
    reasons: list[DecisionReason]
    state: str
    phase: int
    counts: dict[str, int]
    proven: int = Field(description="Deployments that have become a success now.")
    timed_out: int = Field(description="Deployments that have timed out now.")


class RolloutEvent(BaseModel):
    """A change of a rollout, from the audit log."""

    id: int
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class StatusReport(RequestBody):
    """What a device says of its deployment."""

    deployment_id: Annotated[int, Field(ge=1, le=2**62)]
    report_counter: Annotated[int, Field(ge=1, le=2**62)]
    state: Annotated[State, Field(description="Any but timed_out.")]
    stage: Word | None = None
    reason: Text | None = None
    version: Version | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _check_state(self) -> "StatusReport":
        if self.state is State.TIMED_OUT:
            raise ValueError("timed_out is the server's word: report failure")
        if self.state is State.FAILURE and not self.stage:
            raise ValueError("a failure names its stage")
        return self


class DeploymentView(BaseModel):
    """A device's part in a rollout."""

    id: int
    rollout_id: UUID
    device_id: str
    kind: str
    name: str
    version: str
    state: State
    stage: str | None
    reason: str | None
    confirmed_at: datetime | None
    offered_at: datetime
    changed_at: datetime


class DeploymentEvent(BaseModel):
    """One step of it."""

    at: datetime
    state: str
    stage: str | None
    reason: str | None
    detail: dict[str, Any] | None


class DeploymentHistory(DeploymentView):
    """With its steps, the oldest first."""

    events: list[DeploymentEvent]
