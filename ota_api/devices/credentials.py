"""Tokens of devices: issued, renewed, claimed, revoked.

1. A token lasts 30 days. Registering a device again, or claiming it, voids its earlier tokens:
   over HTTP at once, at the broker within two seconds.
2. A device renews its own token, with any of its tokens that still holds. The earlier one lasts
   until it expires, so that an answer that is lost costs nothing. (A broker without the plugin
   knows one password a device: there the new one replaces the old.)
3. A factory secret is good for one claim. Failed claims are counted for the device and the address.
4. A device that does not exist, has no secret or shows another one gets the same answer.
5. Revoking voids every token issued so far, and a secret not yet used. Registering the device
   again brings it back.
6. The broker is told before the transaction commits: what fails in between leaves a device shut
   out at the broker that HTTP still knows, and that its next token lets in again.
7. Secrets are stored as SHA-256 over device and secret alone: they are random.
8. Servers may differ in their clocks: what is voided includes what another has issued at a later
   second, up to CLOCK_LEAD_S later.
"""

import asyncio
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from opentelemetry import trace

from ota_api.audit.repository import AuditRepository
from ota_api.audit.schemas import Action
from ota_api.audit.service import Actor, AuditTrail
from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import RegisteredDevice
from ota_api.limits.rates import network_of
from ota_api.resources import Resources
from ota_api.standing import check_standing
from zenthos_core import tokens
from zenthos_core.errors import AuthenticationError, ConflictError, NotFoundError
from zenthos_core.tokens import CLOCK_LEAD_S, DEVICE_TOKEN_S, Identity, Role

REFUSED: Final = "the device or its factory secret is not known, or the secret has been used"

_tracer = trace.get_tracer(__name__)


def hash_secret(device_id: str, secret: str) -> bytes:
    """Rule 7; two devices with one secret have two hashes."""
    return hashlib.sha256(f"{device_id}\n{secret}".encode()).digest()


async def issue_token(
    resources: Resources,
    devices: DeviceRepository,
    device_id: str,
    farm_id: UUID,
    *,
    ends_earlier: bool,
) -> RegisteredDevice:
    """Rules 1 and 6. The device's row is locked, or new."""
    now = int(resources.clock())
    valid_from, issued = await devices.token_seconds(device_id)
    issued = min(issued, now + CLOCK_LEAD_S)
    second = max(now, valid_from)
    if ends_earlier:
        if issued > now:
            second = max(second, issued + 1)
        second = max(second, await resources.accounts.end_earlier_tokens(device_id, second))
        await devices.void_tokens_before(device_id, second)
    await devices.note_token(device_id, max(second, issued))
    with _tracer.start_as_current_span("ota.issue_device_token"):
        token = _sign(resources, device_id, second)
        await resources.accounts.set(device_id, token)
    # All up to the second of a revocation is void: the token is good when it is handed out.
    await asyncio.sleep(min(1.0, max(0.0, second - resources.clock())))
    return RegisteredDevice(
        device_id=device_id,
        farm_id=farm_id,
        jwt_token=token,
        expires_at=datetime.fromtimestamp(second + DEVICE_TOKEN_S, UTC),
        mqtt_broker=resources.settings.mqtt_public_address,
    )


async def renew_token(
    resources: Resources, devices: DeviceRepository, trail: AuditTrail, identity: Identity
) -> RegisteredDevice:
    """Rule 2.

    Raises:
        AuthenticationError: where the token was revoked meanwhile.
    """
    device = await devices.find_and_lock(identity.subject)
    if device is None:
        raise NotFoundError(f"device {identity.subject} was removed just now: register it again")
    await check_standing(devices.connection, identity)
    issued = await issue_token(
        resources, devices, device.device_id, device.farm_id, ends_earlier=False
    )
    await trail.record(
        Action.DEVICE_TOKEN, f"device {device.device_id}", after={"reason": "renewed by itself"}
    )
    return issued


async def claim_device(
    resources: Resources,
    devices: DeviceRepository,
    entries: AuditRepository,
    *,
    device_id: str,
    secret: str,
    address: str,
) -> RegisteredDevice:
    """Rules 1, 3 and 4.

    Raises:
        AuthenticationError: for a claim that is refused.
        ThrottledError: after too many of them.
    """
    attempts = (
        (resources.throttles.claim_by_address, network_of(address)),
        (resources.throttles.claim_by_device, device_id),
    )
    for throttle, key in attempts:
        await throttle.begin(key)
    stored = await devices.factory_secret_hash(device_id)
    given = hash_secret(device_id, secret)
    matches = hmac.compare_digest(stored or bytes(len(given)), given)
    farm_id = await devices.use_factory_secret(device_id, given) if matches else None
    if farm_id is None:
        raise AuthenticationError(REFUSED)
    trail = AuditTrail(entries, Actor(device_id, Role.DEVICE))
    await trail.record(Action.DEVICE_CLAIM, f"device {device_id}")
    issued = await issue_token(resources, devices, device_id, farm_id, ends_earlier=True)
    for throttle, key in attempts:
        await throttle.succeed(key)
    return issued


async def revoke_device(
    resources: Resources, devices: DeviceRepository, trail: AuditTrail, device_id: str
) -> None:
    """Rule 5.

    Raises:
        NotFoundError: where there is no such device.
        ConflictError: for a decommissioned one, which has no tokens.
    """
    device = await devices.find_and_lock(device_id)
    if device is None:
        raise NotFoundError(f"no device {device_id}: register it with POST /devices/register")
    if device.decommissioned_at is not None:
        raise ConflictError(f"device {device_id} is decommissioned: its tokens are void already")
    await void_credentials(resources, devices, device_id)
    await trail.record(Action.DEVICE_REVOKE, f"device {device_id}")


async def void_credentials(resources: Resources, devices: DeviceRepository, device_id: str) -> None:
    """Rules 5 and 6. The device's row is locked."""
    valid_from, issued = await devices.token_seconds(device_id)
    now = int(resources.clock())
    last = max(now, valid_from - 1, min(issued, now + CLOCK_LEAD_S))
    await resources.accounts.shut_out(device_id, last)
    await devices.void_tokens_before(device_id, last + 1)
    await devices.update(device_id, {"factory_secret_hash": None})


def _sign(resources: Resources, device_id: str, now: int) -> str:
    return tokens.issue(
        resources.token_keys.private_pem,
        device_id,
        Role.DEVICE,
        now=now,
        valid_s=DEVICE_TOKEN_S,
        scopes=["read"],
    )
