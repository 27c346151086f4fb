"""Sessions on the wire."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from ota_api.fields import RequestBody
from ota_api.users.schemas import USER_NAME, UserRole
from zenthos_core.passwords import MAX_BYTES

Name = Annotated[str, StringConstraints(pattern=f"^{USER_NAME.pattern}$")]
Password = Annotated[str, StringConstraints(min_length=1, max_length=MAX_BYTES)]
RefreshToken = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]


class Credentials(RequestBody):
    """Of a user."""

    username: Name
    password: Password


class Refresh(RequestBody):
    """The newest refresh token of a session."""

    refresh_token: RefreshToken


class SessionTokens(BaseModel):
    """What a session goes on with; shown only here."""

    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    access_token: str
    expires_in: int = Field(description="Seconds that the access token lasts.")
    refresh_token: str = Field(description="Good for one use; each gives a new one.")
    refresh_expires_in: int = Field(description="Seconds that the refresh token lasts.")
    role: UserRole
    scope: str = Field(description="Of the access token, with blanks between.")
