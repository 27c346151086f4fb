"""What GitHub sends, of which the fields below are read, and what it and users are answered."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from pydantic import BaseModel, Field

MAX_HOOK_BYTES = 2 * 1024 * 1024
"""Release notes and some hundred assets; it is held in memory before its HMAC is known."""
MAX_ASSETS = 200

Line = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Url = Annotated[str, Meta(max_length=2_000, pattern=r"^https?://[!-~]+$")]


class Asset(msgspec.Struct, frozen=True):
    """A file of a release; the first URL takes a token, the second is for anyone."""

    name: Line
    url: Url
    browser_download_url: Url


class GithubRelease(msgspec.Struct, frozen=True):
    """`release` of the event."""

    tag_name: Line
    assets: Annotated[list[Asset], Meta(max_length=MAX_ASSETS)]


class Repository(msgspec.Struct, frozen=True):
    """`repository` of the event."""

    full_name: Annotated[str, Meta(max_length=140, pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]


class ReleaseEvent(msgspec.Struct, frozen=True):
    """The event `release`."""

    action: str
    release: GithubRelease
    repository: Repository


State = Literal["pending", "published", "failed"]


class HookAnswer(BaseModel):
    """What becomes of a delivery."""

    status: Literal["pending", "published", "failed", "ignored"]
    detail: str
    delivery_id: UUID | None = Field(description="As listed; null where there is nothing to do.")


class Delivery(BaseModel):
    """A release that GitHub has announced."""

    id: UUID
    repository: str
    tag: str
    state: State
    detail: str = Field(description="What was published, or why not.")
    attempts: int
    received_at: datetime
    finished_at: datetime | None
