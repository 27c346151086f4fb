"""Devices: admins register them, users list them, each may see its own status."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from ota_api.auth import Admin, Known, User, check_own
from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import Device, DeviceRegistration, RegisteredDevice
from ota_api.devices.service import get_device, register_device
from ota_api.farms.repository import FarmRepository
from ota_api.fields import DeviceIdPath, DeviceModel
from ota_api.pagination import After, Limit, Page, cut_page
from ota_api.resources import Opened, Transaction
from zenthos_core.messages import DeviceStatus

router = APIRouter(tags=["devices"])


@router.post("/devices/register", status_code=HTTPStatus.CREATED)
async def post_device(
    wanted: DeviceRegistration,
    _: Admin,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> RegisteredDevice:
    """Register a device. The same data again (200) gives a new token; other data is a conflict."""
    registered, created = await register_device(
        resources, DeviceRepository(connection), FarmRepository(connection), wanted
    )
    if not created:
        response.status_code = HTTPStatus.OK
    response.headers["Cache-Control"] = "no-store"
    return registered


@router.get("/devices")
async def get_devices(
    *,
    _: User,
    connection: Transaction,
    farm_id: UUID | None = None,
    device_model: Annotated[DeviceModel | None, Query()] = None,
    status: DeviceStatus | None = None,
    after: After = "",
    limit: Limit = 100,
) -> Page[Device]:
    """Devices by id, of a farm, model or status where given."""
    filters = {"farm_id": farm_id, "device_model": device_model, "status": status}
    devices = await DeviceRepository(connection).page(after, limit + 1, filters)
    return cut_page(devices, limit, lambda device: device.device_id)


@router.get("/devices/{device_id}/status")
@router.get("/device/{device_id}/status")
async def get_device_status(
    device_id: DeviceIdPath, identity: Known, connection: Transaction
) -> Device:
    """A device and its current state; a device sees only its own."""
    check_own(identity, device_id)
    return await get_device(DeviceRepository(connection), device_id)
