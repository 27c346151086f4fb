"""What may be done with devices.

1. A device is registered once. The same data again gives it a new token; other data is a conflict:
   PATCH changes a device.
2. Moving a device leaves its past where it was: placements keep since when it has been where.
3. A decommissioned device keeps its history and its id, which is never used again. Its tokens are
   void, the broker refuses it, and its open deployments end without being failures.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.devices.credentials import hash_secret, issue_token, void_credentials
from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import Device, DeviceRegistration, DeviceUpdate, RegisteredDevice
from ota_api.farms.repository import FarmRepository
from ota_api.farms.schemas import FarmCreation
from ota_api.farms.service import create_farm
from ota_api.resources import Resources
from ota_api.rollouts.repository import RolloutRepository
from zenthos_core.errors import ConflictError, NotFoundError


async def register_device(
    resources: Resources,
    devices: DeviceRepository,
    farms: FarmRepository,
    trail: AuditTrail,
    wanted: DeviceRegistration,
) -> tuple[RegisteredDevice, bool]:
    """A token for the device, and whether the device is new. Earlier tokens are void (rule 1).

    The broker is told before the row is committed: a registered device can always connect, and one
    without a row can store nothing.

    Raises:
        NotFoundError: where there is no such farm.
        ConflictError: where the device exists with other data.
    """
    farm_id, created = await add_device(devices, farms, trail, wanted)
    if not created:
        await _keep_secret(devices, wanted)
        after = {"reason": "registered again"}
        await trail.record(Action.DEVICE_TOKEN, f"device {wanted.device_id}", after=after)
    registered = await issue_token(
        resources, devices, wanted.device_id, farm_id, ends_earlier=not created
    )
    return registered, created


async def add_device(
    devices: DeviceRepository, farms: FarmRepository, trail: AuditTrail, wanted: DeviceRegistration
) -> tuple[UUID, bool]:
    """The device's farm, and whether the device is new; one that exists is locked and unchanged.

    Raises:
        NotFoundError, ConflictError: as register_device.
    """
    farm_id = await _find_farm(farms, trail, wanted)
    created = await devices.insert(wanted, farm_id)
    if not created:
        _check_same(await devices.find_and_lock(wanted.device_id), wanted, farm_id)
        return farm_id, False
    await _keep_secret(devices, wanted)
    after = wanted.model_dump(mode="json", exclude={"device_id", "farm_name", "factory_secret"})
    after |= {"farm_id": str(farm_id), "claimable": wanted.factory_secret is not None}
    await trail.record(Action.DEVICE_REGISTER, f"device {wanted.device_id}", after=after)
    return farm_id, True


async def get_device(devices: DeviceRepository, device_id: str) -> Device:
    """The device; NotFoundError where it is not registered."""
    return _existing(await devices.find(device_id), device_id)


async def update_device(
    devices: DeviceRepository,
    farms: FarmRepository,
    trail: AuditTrail,
    device_id: str,
    changes: DeviceUpdate,
) -> Device:
    """The device as it is then (rule 2).

    Raises:
        NotFoundError: where there is no such device or farm.
        ConflictError: for a decommissioned one.
    """
    device = await _lock_in_use(devices, device_id)
    if changes.farm_id is not None and await farms.find(changes.farm_id) is None:
        raise NotFoundError(f"no farm {changes.farm_id}: create it with POST /farms")
    wanted = {name: getattr(changes, name) for name in changes.model_fields_set}
    changed = {name: value for name, value in wanted.items() if getattr(device, name) != value}
    if not changed:
        return device
    await devices.update(device_id, _columns(changed))
    updated = _existing(await devices.find(device_id), device_id)
    before, after = (d.model_dump(mode="json", include=set(changed)) for d in (device, updated))
    await trail.record(Action.DEVICE_UPDATE, f"device {device_id}", before=before, after=after)
    return updated


async def decommission_device(
    resources: Resources,
    devices: DeviceRepository,
    rollouts: RolloutRepository,
    trail: AuditTrail,
    device_id: str,
) -> Device:
    """Rule 3; one that is decommissioned already stays as it is.

    Raises:
        NotFoundError: where there is no such device.
    """
    device = _existing(await devices.find_and_lock(device_id), device_id)
    if device.decommissioned_at is not None:
        return device
    now = datetime.fromtimestamp(resources.clock(), UTC)
    await devices.update(device_id, {"decommissioned_at": now})
    await rollouts.abort_deployments("decommissioned", now, device_id=device_id)
    await void_credentials(resources, devices, device_id)
    await trail.record(Action.DEVICE_DECOMMISSION, f"device {device_id}")
    return _existing(await devices.find(device_id), device_id)


async def _lock_in_use(devices: DeviceRepository, device_id: str) -> Device:
    device = _existing(await devices.find_and_lock(device_id), device_id)
    if device.decommissioned_at is not None:
        raise ConflictError(f"device {device_id} is decommissioned: it stays as it was")
    return device


def _existing(device: Device | None, device_id: str) -> Device:
    if device is None:
        raise NotFoundError(f"no device {device_id}: register it with POST /devices/register")
    return device


def _columns(changed: dict[str, Any]) -> dict[str, Any]:
    columns = dict(changed)
    if "location" in columns:
        location = columns.pop("location")
        columns["latitude"] = location and location.lat
        columns["longitude"] = location and location.lon
    return columns


async def _keep_secret(devices: DeviceRepository, wanted: DeviceRegistration) -> None:
    if wanted.factory_secret is not None:
        hashed = hash_secret(wanted.device_id, wanted.factory_secret)
        await devices.update(wanted.device_id, {"factory_secret_hash": hashed})


async def _find_farm(farms: FarmRepository, trail: AuditTrail, wanted: DeviceRegistration) -> UUID:
    if wanted.farm_name is not None:
        farm, _ = await create_farm(farms, trail, FarmCreation(name=wanted.farm_name))
        return farm.id
    found = wanted.farm_id and await farms.find(wanted.farm_id)
    if not found:
        raise NotFoundError(f"no farm {wanted.farm_id}: create it with POST /farms")
    return found.id


def _check_same(existing: Device | None, wanted: DeviceRegistration, farm_id: UUID) -> None:
    """Rule 1."""
    if existing is None:
        raise ConflictError(f"device {wanted.device_id} was removed just now: send it again")
    if existing.decommissioned_at is not None:
        raise ConflictError(
            f"device {wanted.device_id} is decommissioned: register it under another id"
        )
    pairs = {
        "device_model": (existing.device_model, wanted.device_model),
        "device_type": (existing.device_type, wanted.device_type),
        "farm": (existing.farm_id, farm_id),
        "location": (existing.location, wanted.location),
        "report interval": (existing.report_interval_s, wanted.report_interval_s),
    }
    if "tags" in wanted.model_fields_set:
        pairs["tags"] = (existing.tags, wanted.tags)
    differing = ", ".join(name for name, (stored, given) in pairs.items() if stored != given)
    if differing:
        raise ConflictError(
            f"device {wanted.device_id} is registered with another {differing}:"
            f" PATCH /devices/{wanted.device_id} changes a device"
        )
