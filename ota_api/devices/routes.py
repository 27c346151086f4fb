"""Devices: admins register them, users list them, each may see itself and renew its token."""

from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response

from ota_api.audit.repository import AuditRepository
from ota_api.auth import (
    PUBLIC,
    Admin,
    AdminToken,
    Known,
    OneDevice,
    Operator,
    Trail,
    User,
    check_own,
)
from ota_api.devices.bulk import parse_csv, register_all
from ota_api.devices.credentials import claim_device, renew_token, revoke_device
from ota_api.devices.filters import DeviceFilter, Near
from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import (
    BulkResult,
    Claim,
    Device,
    DeviceRegistration,
    DeviceUpdate,
    RegisteredDevice,
    Tag,
)
from ota_api.devices.service import (
    decommission_device,
    get_device,
    register_device,
    update_device,
)
from ota_api.farms.repository import FarmRepository
from ota_api.fields import DeviceIdPath, DeviceModel, Latitude, Line, Longitude
from ota_api.openapi import same_again
from ota_api.pagination import After, Limit, Page, cut_page
from ota_api.resources import Opened, Transaction, client_address
from ota_api.rollouts.repository import RolloutRepository
from zenthos_core.errors import InvalidInputError
from zenthos_core.messages import DeviceStatus

router = APIRouter(tags=["devices"])
BULK_PATH: Final = "/devices/bulk"
HALF_WAY_ROUND_KM: Final = 20_038
_NO_STORE: Final = {"Cache-Control": "no-store"}
_CSV_BODY: Final = {
    "requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}
}

Rows = list[tuple[int, dict[str, Any]]]


async def _read_rows(request: Request, _: AdminToken) -> Rows:
    """The body, read only once the token is known to be good, and before a transaction begins."""
    return await to_thread.run_sync(parse_csv, await request.body())


async def _near(
    near_lat: Annotated[Latitude | None, Query(description="Degrees, with near_lon.")] = None,
    near_lon: Annotated[Longitude | None, Query()] = None,
    radius_km: Annotated[
        float | None, Query(gt=0, le=HALF_WAY_ROUND_KM, allow_inf_nan=False)
    ] = None,
) -> Near | None:
    given = (near_lat, near_lon, radius_km)
    if given == (None, None, None):
        return None
    if near_lat is None or near_lon is None or radius_km is None:
        raise InvalidInputError("near a point takes all of near_lat, near_lon and radius_km")
    return Near(near_lat, near_lon, radius_km)


async def _filter(
    *,
    near: Annotated[Near | None, Depends(_near)],
    farm_id: UUID | None = None,
    tag: Annotated[Tag | None, Query()] = None,
    device_model: Annotated[DeviceModel | None, Query()] = None,
    status: DeviceStatus | None = None,
    firmware_version: Annotated[Line | None, Query()] = None,
    decommissioned: Annotated[bool, Query(description="Those alone, or none of them.")] = False,
) -> DeviceFilter:
    return DeviceFilter(
        farm_id=farm_id,
        tag=tag,
        device_model=device_model,
        status=status,
        firmware_version=firmware_version,
        near=near,
        decommissioned=decommissioned,
    )


@router.post(
    "/devices/register", status_code=HTTPStatus.CREATED, responses=same_again(RegisteredDevice)
)
async def post_device(
    *,
    wanted: DeviceRegistration,
    _: Admin,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> RegisteredDevice:
    """Register a device. The same data again (200) gives a new token; other data is a conflict."""
    registered, created = await register_device(
        resources, DeviceRepository(connection), FarmRepository(connection), trail, wanted
    )
    if not created:
        response.status_code = HTTPStatus.OK
    response.headers.update(_NO_STORE)
    return registered


@router.post(BULK_PATH, openapi_extra=_CSV_BODY)
async def post_devices(
    rows: Annotated[Rows, Depends(_read_rows)],
    _: Admin,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> BulkResult:
    """Register the devices of a CSV; each line is created, unchanged or refused."""
    response.headers.update(_NO_STORE)
    return await register_all(resources, connection, trail, rows)


@router.get("/devices")
async def get_devices(
    *,
    _: User,
    connection: Transaction,
    wanted: Annotated[DeviceFilter, Depends(_filter)],
    after: After = "",
    limit: Limit = 100,
) -> Page[Device]:
    """Devices in use by id: of a farm, tag, model, status, firmware version, near a point."""
    devices = await DeviceRepository(connection).page(after, limit + 1, wanted)
    return cut_page(devices, limit, lambda device: device.device_id)


@router.get("/devices/{device_id}/status")
@router.get("/device/{device_id}/status")
async def get_device_status(
    device_id: DeviceIdPath, identity: Known, connection: Transaction
) -> Device:
    """A device and its current state; a device sees only its own."""
    check_own(identity, device_id)
    return await get_device(DeviceRepository(connection), device_id)


@router.patch("/devices/{device_id}")
async def patch_device(
    device_id: DeviceIdPath,
    changes: DeviceUpdate,
    _: Operator,
    trail: Trail,
    connection: Transaction,
) -> Device:
    """Change a device's farm, location, report interval or tags."""
    devices, farms = DeviceRepository(connection), FarmRepository(connection)
    return await update_device(devices, farms, trail, device_id, changes)


@router.post("/devices/{device_id}/token")
async def post_device_token(
    *,
    device_id: DeviceIdPath,
    identity: OneDevice,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> RegisteredDevice:
    """A new token for the device that asks; the one it asks with lasts until it expires."""
    check_own(identity, device_id)
    response.headers.update(_NO_STORE)
    return await renew_token(resources, DeviceRepository(connection), trail, identity)


@router.post("/devices/{device_id}/claim", dependencies=PUBLIC)
async def post_device_claim(
    *,
    device_id: DeviceIdPath,
    claim: Claim,
    request: Request,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> RegisteredDevice:
    """A token for a device that shows its factory secret, once."""
    response.headers.update(_NO_STORE)
    devices, entries = DeviceRepository(connection), AuditRepository(connection)
    address = client_address(request)
    return await claim_device(
        resources,
        devices,
        entries,
        device_id=device_id,
        secret=claim.factory_secret,
        address=address,
    )


@router.post("/devices/{device_id}/revoke", status_code=HTTPStatus.NO_CONTENT)
async def post_device_revocation(
    device_id: DeviceIdPath,
    _: Operator,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
) -> None:
    """Void every token of the device."""
    await revoke_device(resources, DeviceRepository(connection), trail, device_id)


@router.post("/devices/{device_id}/decommission")
async def post_device_decommission(
    device_id: DeviceIdPath,
    _: Admin,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
) -> Device:
    """Take a device out of use for good; its history stays."""
    return await decommission_device(
        resources, DeviceRepository(connection), RolloutRepository(connection), trail, device_id
    )
