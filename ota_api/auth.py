"""Who asks, and whether they may: bearer tokens, roles, scopes."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from opentelemetry import trace

from ota_api.resources import Opened
from zenthos_core import tokens
from zenthos_core.errors import AuthenticationError, PermissionDeniedError
from zenthos_core.tokens import Identity, Role

USERS: Final = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)
ANYONE_KNOWN: Final = (*USERS, Role.DEVICE)

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT")


async def identify(
    resources: Opened,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Identity:
    """The token's owner; AuthenticationError without a good token."""
    if credentials is None:
        raise AuthenticationError("send a token: Authorization: Bearer <token>")
    identity = tokens.verify(resources.token_keys.public_pem, credentials.credentials)
    trace.get_current_span().set_attributes(
        {"enduser.id": identity.subject, "enduser.role": identity.role.value}
    )
    return identity


def require(*roles: Role, scope: str | None = None) -> Any:
    """A dependency: the identity, if it has one of the roles and, where named, the scope."""
    return Depends(_requirement(roles, scope))


def check_own(identity: Identity, device_id: str) -> None:
    """A device sees only itself; users see every device."""
    if identity.role is Role.DEVICE and identity.subject != device_id:
        raise PermissionDeniedError("a device may see only what is its own")


def _requirement(
    roles: tuple[Role, ...], scope: str | None
) -> Callable[[Identity], Awaitable[Identity]]:
    async def check(identity: Annotated[Identity, Depends(identify)]) -> Identity:
        if identity.role not in roles:
            allowed = " or ".join(roles)
            raise PermissionDeniedError(f"this takes the role {allowed}, not {identity.role}")
        if scope is not None and scope not in identity.scopes:
            raise PermissionDeniedError(f"this takes a token with the scope {scope}")
        return identity

    return check


Admin = Annotated[Identity, require(Role.ADMIN)]
User = Annotated[Identity, require(*USERS)]
Known = Annotated[Identity, require(*ANYONE_KNOWN)]
Publisher = Annotated[Identity, require(Role.ADMIN, Role.OPERATOR, scope="publish")]
