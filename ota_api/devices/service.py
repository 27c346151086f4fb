"""What may be done with devices."""

from datetime import UTC, datetime
from uuid import UUID

from opentelemetry import trace

from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import Device, DeviceRegistration, RegisteredDevice
from ota_api.farms.repository import FarmRepository
from ota_api.farms.schemas import FarmCreation
from ota_api.farms.service import create_farm
from ota_api.resources import Resources
from zenthos_core import tokens
from zenthos_core.errors import ConflictError, NotFoundError
from zenthos_core.tokens import DEVICE_TOKEN_S, Role

_tracer = trace.get_tracer(__name__)


async def register_device(
    resources: Resources,
    devices: DeviceRepository,
    farms: FarmRepository,
    wanted: DeviceRegistration,
) -> tuple[RegisteredDevice, bool]:
    """A token for the device, and whether the device is new. An earlier token ends at the broker.

    The broker is told before the row is committed: a registered device can always connect, and one
    without a row can store nothing.

    Raises:
        NotFoundError: where there is no such farm.
        ConflictError: where the device exists with other data.
    """
    farm_id = await _find_farm(farms, wanted)
    created = await devices.insert(wanted, farm_id)
    now = int(resources.clock())
    if not created:
        _check_same(await devices.find_and_lock(wanted.device_id), wanted, farm_id)
        now = await resources.accounts.end_earlier_tokens(wanted.device_id, now)
    with _tracer.start_as_current_span("ota.issue_device_token"):
        registered = _issue(resources, wanted.device_id, farm_id, now)
        await resources.accounts.set(wanted.device_id, registered.jwt_token)
    return registered, created


async def get_device(devices: DeviceRepository, device_id: str) -> Device:
    """The device; NotFoundError where it is not registered."""
    device = await devices.find(device_id)
    if device is None:
        raise NotFoundError(f"no device {device_id}: register it with POST /devices/register")
    return device


async def _find_farm(farms: FarmRepository, wanted: DeviceRegistration) -> UUID:
    if wanted.farm_name is not None:
        farm, _ = await create_farm(farms, FarmCreation(name=wanted.farm_name))
        return farm.id
    found = wanted.farm_id and await farms.find(wanted.farm_id)
    if not found:
        raise NotFoundError(f"no farm {wanted.farm_id}: create it with POST /farms")
    return found.id


def _check_same(existing: Device | None, wanted: DeviceRegistration, farm_id: UUID) -> None:
    if existing is None:
        raise ConflictError(f"device {wanted.device_id} was removed just now: send it again")
    pairs = {
        "device_model": (existing.device_model, wanted.device_model),
        "device_type": (existing.device_type, wanted.device_type),
        "farm": (existing.farm_id, farm_id),
        "location": (existing.location, wanted.location),
        "report interval": (existing.report_interval_s, wanted.report_interval_s),
    }
    differing = ", ".join(name for name, (stored, given) in pairs.items() if stored != given)
    if differing:
        raise ConflictError(f"device {wanted.device_id} is registered with another {differing}")


def _issue(resources: Resources, device_id: str, farm_id: UUID, now: int) -> RegisteredDevice:
    token = tokens.issue(
        resources.token_keys.private_pem,
        device_id,
        Role.DEVICE,
        now=now,
        valid_s=DEVICE_TOKEN_S,
        scopes=["read"],
    )
    return RegisteredDevice(
        device_id=device_id,
        farm_id=farm_id,
        jwt_token=token,
        expires_at=datetime.fromtimestamp(now + DEVICE_TOKEN_S, UTC),
        mqtt_broker=resources.settings.mqtt_public_address,
    )
