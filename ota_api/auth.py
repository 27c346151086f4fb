"""Who asks, and whether they may: bearer tokens, roles, scopes, and whether the token still holds.

A dependency that ends in `Token` knows the token alone: it is for what must be refused before a
body is read, and never enough to act upon.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from opentelemetry import trace

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.resources import Opened, Resources, Transaction
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
    request: Request,
    resources: Opened,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Identity:
    """The token's owner, whose request is counted; the address's without a token that verifies.

    Raises:
        AuthenticationError: without a token that verifies.
        ThrottledError: after too many requests.
    """
    identity = await verified_or_counted(
        request, resources, credentials.credentials if credentials else None
    )
    trace.get_current_span().set_attributes(
        {"enduser.id": identity.subject, "enduser.role": identity.role.value}
    )
    return identity


async def verified_or_counted(
    request: Request, resources: Resources, token: str | None
) -> Identity:
    """As read_token, for whoever has found the token elsewhere."""
    try:
        identity = _verify(resources, token)
    except AuthenticationError:
        await resources.limits.count_public(request.scope)
        raise
    await resources.limits.count(request.scope, identity)
    return identity


def _verify(resources: Resources, token: str | None) -> Identity:
    if token is None:
        raise AuthenticationError("send a token: Authorization: Bearer <token>")
    return resources.token_keys.verify(token)


async def _count_public(request: Request, resources: Opened) -> None:
    _, _, token = request.headers.get("authorization", "").partition("Bearer ")
    try:
        identity = _verify(resources, token or None)
    except AuthenticationError:  # it needs none
        await resources.limits.count_public(request.scope)
    else:
        await resources.limits.count(request.scope, identity)


PUBLIC: Final = [Depends(_count_public)]
"""Dependencies of a route that needs no token. A request with one that verifies is counted for its
owner, any other for the address: all devices of a farm may ask for keys.json from one."""


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


check_known = permit(*ANYONE_KNOWN)
"""The permission of KnownToken, for whoever has verified a token already."""

_admin = permit(Role.ADMIN)
_publisher = permit(Role.ADMIN, Role.OPERATOR, scope=PUBLISH)
_steering = permit(Role.ADMIN, Role.OPERATOR, scope=ROLLBACK)

AdminToken = Annotated[Identity, Depends(_admin)]
KnownToken = Annotated[Identity, Depends(check_known)]
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
