"""DDI v1 on the wire, as far as its clients read it; names are the protocol's own.

Wire rules: a member that a client sends and we do not know is ignored, as hawkBit does; ids are
strings in answers and whatever the client likes in requests.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

MAX_ATTRIBUTES: Final = 100
"""Of a device's configData."""
MAX_DETAILS: Final = 1_000
"""Lines of one feedback; SWUpdate sends 48 at a time."""

Execution = Literal[
    "closed",
    "proceeding",
    "canceled",
    "scheduled",
    "rejected",
    "resumed",
    "downloaded",
    "download",
]
AttributeName = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")
]
AttributeValue = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Link(BaseModel):
    """HAL's."""

    href: str


class Polling(BaseModel):
    """How often the device should ask."""

    sleep: str = Field(pattern=r"^\d{2}:\d{2}:\d{2}$", description="HH:MM:SS.")


class Config(BaseModel):
    """What the server wants of the device."""

    polling: Polling


class ControllerBase(BaseModel):
    """What there is to do; each link is there only where it applies."""

    config: Config
    links: dict[Literal["deploymentBase", "cancelAction", "configData", "installedBase"], Link] = (
        Field(serialization_alias="_links")
    )


class Hashes(BaseModel):
    """Hexadecimal; the two weak ones are what SWUpdate and RAUC's updater know."""

    sha1: str | None
    md5: str | None
    sha256: str


class Artifact(BaseModel):
    """A file of a software module."""

    filename: str
    hashes: Hashes
    size: int
    links: dict[str, Link] = Field(serialization_alias="_links")


class Chunk(BaseModel):
    """A software module to install."""

    part: str
    version: str
    name: str
    artifacts: list[Artifact]


HandlingType = Literal["forced", "attempt"]


class Deployment(BaseModel):
    """What to install, and how urgently."""

    download: HandlingType
    update: HandlingType
    chunks: list[Chunk]


class ActionHistory(BaseModel):
    """What the server knows of the action, the newest first."""

    status: str
    messages: list[str]


class DeploymentBase(BaseModel):
    """An action, in full."""

    id: str
    deployment: Deployment
    actionHistory: ActionHistory | None = None  # noqa: N815  # the protocol's name


class StopId(BaseModel):
    """Which action is to be stopped."""

    stopId: str  # noqa: N815


class Cancel(BaseModel):
    """An action that is taken back; it is confirmed under its own id."""

    id: str
    cancelAction: StopId  # noqa: N815


class Result(BaseModel):
    """How the action ended, or `none` while it has not."""

    finished: Literal["success", "failure", "none"]


class Status(BaseModel):
    """How far the device is."""

    execution: Execution
    result: Result
    details: Annotated[list[str], Field(max_length=MAX_DETAILS)] | None = None


class Feedback(BaseModel):
    """A report of an action, or of its cancellation."""

    status: Status


class ConfigData(BaseModel):
    """What the device tells of itself; `firmware_version` is what it runs."""

    mode: Literal["merge", "replace", "remove"] | None = None
    data: dict[AttributeName, AttributeValue] = Field(max_length=MAX_ATTRIBUTES)
