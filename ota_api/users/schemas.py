"""Users."""

import re
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel

USER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{1,63}")
UserRole = Literal["admin", "operator", "viewer"]


class User(BaseModel):
    """A user, without the password."""

    id: UUID
    name: str
    role: UserRole
    created_at: datetime
    disabled_at: datetime | None
