"""Releases on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ota_api.fields import DeviceModel, Line, RequestBody

MAX_BINARY_BYTES = 16 * 1024 * 1024
"""In JSON: flash of the largest board."""

MAX_FILE_BYTES = 100 * 1024 * 1024
"""As a file of a form."""

MAX_FORM_BYTES = MAX_FILE_BYTES + 256 * 1024
"""The file and the other parts."""

MAX_PUBLISH_BYTES = MAX_BINARY_BYTES * 4 // 3 + 64 * 1024
"""The binary in base64 and the rest of the body."""

Notes = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]


class Chosen(RequestBody):
    """What the publisher says of a release, beside what is signed."""

    release_notes: Notes = ""
    required: bool = False
    rollout_percentage: Annotated[int, Field(ge=0, le=100)] = 100
    reissue: bool = Field(
        False, description="A version that was published, signed anew: the way back to it."
    )


class Publication(Chosen):
    """A signed release to publish; binary fields are base64."""

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")

    manifest: bytes = Field(min_length=1, description="The exact signed bytes.")
    signature: bytes = Field(
        min_length=64, max_length=64, description="Detached Ed25519 signature over them."
    )
    device_model: DeviceModel | None = Field(None, description="One that the manifest names.")
    version: Line | None = Field(None, description="As the manifest has it.")
    binary_data: bytes | None = Field(
        None, min_length=1, max_length=MAX_BINARY_BYTES, description="A reissue needs none."
    )


class Published(BaseModel):
    """A release that can be fetched."""

    id: UUID
    status: Literal["published"]
    url: str = Field(description="Where its binary is, for the first of its device models.")


class Requirements(BaseModel):
    """What must be on the device already."""

    min_firmware: str | None = None
    payload_schema: int | None = None


class ReleaseMetadata(BaseModel):
    """A release as a device model may install it."""

    device_model: str
    kind: str
    name: str
    version: str
    binary_url: str
    sha256: str
    size_bytes: int
    manifest: str = Field(description="Base64 of the exact signed bytes.")
    signature: str = Field(description="Base64 of the Ed25519 signature over them.")
    key_id: str
    release_counter: int
    expires: int = Field(description="UTC epoch seconds, as signed.")
    uploaded_at: datetime
    required: bool
    rollout_percentage: int
    release_notes: str
    requires: Requirements
    min_firmware: str | None = Field(description="The same as in `requires`.")
    rollout: UUID | None = Field(description="The rollout that offers it; null for users.")
    deployment_id: int | None = Field(description="What the device names in its reports.")
    checkin: str | None = Field(
        None, description="With a nonce: base64 of the exact bytes that the online key signed."
    )
    checkin_signature: str | None = Field(
        None, description="Base64 of the Ed25519 signature over them."
    )


class ReleaseCounter(BaseModel):
    """Where the releases of a kind stand for a device model."""

    device_model: str
    kind: str
    newest: int = Field(description="0 where nothing is published yet.")
    next: int = Field(description="The release_counter to sign next.")


class ReleaseSummary(BaseModel):
    """A release in a list."""

    id: UUID
    kind: str
    name: str
    version: str
    device_models: list[str]
    release_counter: int
    sha256: str
    size_bytes: int
    key_id: str
    expires_at: datetime
    uploaded_at: datetime
    published_by: str
    required: bool
    rollout_percentage: int
    reissue_of: UUID | None
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    withdrawal_reason: str | None


class ReleaseDetail(ReleaseSummary):
    """One release, with what was signed."""

    sha1: str | None = Field(description="Null for what was published before it was kept.")
    md5: str | None
    manifest: str = Field(description="Base64 of the exact signed bytes.")
    signature: str = Field(description="Base64 of the Ed25519 signature over them.")
    release_notes: str
    open_rollouts: list[UUID]


class Withdrawal(RequestBody):
    """Why a release is taken back."""

    reason: Line
