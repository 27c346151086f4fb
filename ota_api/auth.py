"""Who asks, and whether they may: bearer tokens, roles, scopes, and whether the token still holds.

A dependency that ends in `Token` knows the token alone: it is for what must be refused before a
body is read, and never enough to act upon.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from opentelemetry import trace

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.resources import Opened, Transaction
from ota_api.standing import check_standing
from zenthos_core.errors import AuthenticationError, PermissionDeniedError
from zenthos_core.tokens import Identity, Role

READ: Final = "read"
PUBLISH: Final = "publish"
ROLLBACK: Final = "rollback"
USERS: Final = (Role.ADMIN, Role.OPERATOR, Role.VIEWER)
ANYONE_KNOWN: Final = (*USERS, Role.DEVICE)

_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT")


async def read_token(
    resources: Opened,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Identity:
    """The token's owner; AuthenticationError without a token that verifies."""
    if credentials is None:
        raise AuthenticationError("send a token: Authorization: Bearer <token>")
    identity = resources.token_keys.verify(credentials.credentials)
    trace.get_current_span().set_attributes(
        {"enduser.id": identity.subject, "enduser.role": identity.role.value}
    )
    return identity


def permit(*roles: Role, scope: str = READ) -> Callable[[Identity], Awaitable[Identity]]:
    """A dependency: the identity, if it has one of the roles, and the scope."""

    async def check(identity: Annotated[Identity, Depends(read_token)]) -> Identity:
        if identity.role not in roles:
            allowed = " or ".join(roles)
            raise PermissionDeniedError(f"this takes the role {allowed}, not {identity.role}")
        if scope not in identity.scopes:
            raise PermissionDeniedError(f"this takes a token with the scope {scope}")
        return identity

    return check


def require(permission: Callable[[Identity], Awaitable[Identity]]) -> Any:
    """A dependency: the permitted identity, if its token still holds."""

    async def check(
        identity: Annotated[Identity, Depends(permission)], connection: Transaction
    ) -> Identity:
        await check_standing(connection, identity)
        return identity

    return Depends(check)


def check_own(identity: Identity, device_id: str) -> None:
    """A device sees only itself; users see every device."""
    if identity.role is Role.DEVICE and identity.subject != device_id:
        raise PermissionDeniedError("a device may see only what is its own")


async def _trail(
    identity: Annotated[Identity, Depends(read_token)], connection: Transaction
) -> AuditTrail:
    return AuditTrail(AuditRepository(connection), Actor.of(identity))


_admin = permit(Role.ADMIN)
_publisher = permit(Role.ADMIN, Role.OPERATOR, scope=PUBLISH)
_steering = permit(Role.ADMIN, Role.OPERATOR, scope=ROLLBACK)

AdminToken = Annotated[Identity, Depends(_admin)]
KnownToken = Annotated[Identity, Depends(permit(*ANYONE_KNOWN))]
PublisherToken = Annotated[Identity, Depends(_publisher)]

Admin = Annotated[Identity, require(_admin)]
Operator = Annotated[Identity, require(permit(Role.ADMIN, Role.OPERATOR))]
User = Annotated[Identity, require(permit(*USERS))]
Known = Annotated[Identity, require(permit(*ANYONE_KNOWN))]
OneDevice = Annotated[Identity, require(permit(Role.DEVICE))]
Publisher = Annotated[Identity, require(_publisher)]
Steering = Annotated[Identity, require(_steering)]
"""Who starts, stops and takes back rollouts."""

Trail = Annotated[AuditTrail, Depends(_trail)]
"""Beside one of the above: by itself it lets in whoever has a token."""
