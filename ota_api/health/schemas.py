"""Health on the wire."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"]
    timestamp: int
    version: str


class Readiness(BaseModel):
    """What the server needs, each `ok` or what is wrong with it."""

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
