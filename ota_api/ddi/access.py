"""Who speaks as a device over DDI.

1. `TargetToken` and `Bearer` carry the device's own token, which must hold as on every route.
2. `GatewayToken` carries the one secret of ZENTHOS_DDI_GATEWAY_TOKEN, for whichever registered
   device in use the path names; without that setting nobody has it.
3. The tenant is `default` or ZENTHOS_DDI_TENANT, in small or capital letters.
4. A controller id is the device's id; capitals stand for small letters and `_` for `-`, since
   Zephyr's client makes its own of the board's name. Links repeat what the client wrote.
"""

import hmac
from typing import Annotated, Final

from fastapi import Depends, Path, Request
from fastapi.security import APIKeyHeader
from opentelemetry import trace

from ota_api.auth import READ, check_own, verified_or_counted
from ota_api.resources import Opened, Resources, Transaction
from ota_api.standing import check_standing
from zenthos_core.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from zenthos_core.tokens import Identity, Role

DEFAULT_TENANT: Final = "default"

_header = APIKeyHeader(
    name="Authorization",
    auto_error=False,
    scheme_name="DDI",
    description="`TargetToken <device token>`, or `Bearer`.",
)

TenantPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ControllerPath = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{2,62}$")]


async def _controller_token(
    request: Request,
    resources: Opened,
    controller_id: ControllerPath,
    authorization: Annotated[str | None, Depends(_header)],
) -> Identity:
    """By rules 1 and 2, before any connection is taken."""
    device_id = controller_id.lower().replace("_", "-")
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() == "gatewaytoken":
        identity = await _gateway(request, resources, token.strip(), device_id)
    else:
        known = scheme.lower() in {"targettoken", "bearer"}
        identity = await verified_or_counted(request, resources, token.strip() if known else None)
    trace.get_current_span().set_attributes(
        {"enduser.id": identity.subject, "enduser.role": identity.role.value}
    )
    if identity.role is not Role.DEVICE:
        raise PermissionDeniedError(f"this takes the role device, not {identity.role}")
    if READ not in identity.scopes:
        raise PermissionDeniedError(f"this takes a token with the scope {READ}")
    check_own(identity, device_id)
    return identity


async def _controller(
    identity: Annotated[Identity, Depends(_controller_token)],
    resources: Opened,
    connection: Transaction,
    tenant: TenantPath,
) -> Identity:
    await check_standing(connection, identity)
    if tenant.lower() not in {DEFAULT_TENANT, resources.settings.ddi_tenant.lower()}:
        raise NotFoundError(f"no tenant {tenant}: use {resources.settings.ddi_tenant}")
    return identity


async def _gateway(request: Request, resources: Resources, token: str, device_id: str) -> Identity:
    """Rule 2; the request counts as the device's."""
    secret = resources.settings.ddi_gateway_token.get_secret_value()
    if not secret or not hmac.compare_digest(secret.encode(), token.encode()):
        await resources.limits.count_public(request.scope)
        raise AuthenticationError("this server takes no such gateway token")
    now = int(resources.clock())
    identity = Identity(device_id, Role.DEVICE, frozenset({READ}), issued_at=now)
    await resources.limits.count(request.scope, identity)
    return identity


Controller = Annotated[Identity, Depends(_controller)]
"""The device that asks."""
