"""Releases: CI and the lineage publish them, devices fetch them."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from opentelemetry import metrics

from ota_api.auth import KnownToken, User
from ota_api.delivery.blocks import StoredFile
from ota_api.delivery.service import send_file, wants_binary
from ota_api.fields import DeviceModelPath
from ota_api.releases.answers import Nonce, answer_metadata, refuse, sign_check_in
from ota_api.releases.entitlement import Denied
from ota_api.releases.fetching import fetch
from ota_api.releases.repository import (
    FIRMWARE_KINDS,
    MODEL_KINDS,
    Release,
    ReleaseRepository,
    Slot,
)
from ota_api.releases.schemas import (
    ReleaseCounter,
    ReleaseMetadata,
)
from ota_api.resources import Opened, Resources, Transaction
from zenthos_core import lake
from zenthos_core.manifest import FIRMWARE_VERSION, MODEL_VERSION, RELEASE_NAME
from zenthos_core.tokens import Identity, Role

router = APIRouter(tags=["releases"])

LATEST: Final = "latest"

ModelName = Annotated[str, Path(pattern=f"^{RELEASE_NAME.pattern}$")]
FirmwareVersion = Annotated[str, Path(pattern=f"^({LATEST}|{FIRMWARE_VERSION.pattern})$")]
ModelVersion = Annotated[str, Path(pattern=f"^({LATEST}|{MODEL_VERSION.pattern})$")]
FirmwareKind = Literal["firmware-bundle", "esp-image"]
Download = Annotated[bool, Query(description="Send the binary; so does Accept: octet-stream.")]
NonceQuery = Annotated[
    str | None,
    Query(
        pattern="^[A-Za-z0-9_-]{16,64}$",
        description="Of a device that asks for the latest: the answer is signed over it.",
    ),
]

_downloads = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.firmware_downloads", description="Downloads begun, of firmware and models."
)


_BINARY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"content": {"application/octet-stream": {}}, "description": "The range asked for."},
}


def _get_and_head(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"response_model": ReleaseMetadata, "responses": _BINARY}
        router.add_api_route(path, endpoint, methods=["GET"], **options)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)
        return endpoint

    return add


@_get_and_head("/firmware/{device_model}/{version}")
async def get_firmware(
    *,
    request: Request,
    identity: KnownToken,
    resources: Opened,
    device_model: DeviceModelPath,
    version: FirmwareVersion,
    kind: FirmwareKind | None = None,
    download: Download = False,
    nonce: NonceQuery = None,
) -> Response:
    """Firmware of a version, or the one that the device should run: metadata, or the binary."""
    slot = Slot(device_model, FIRMWARE_KINDS if kind is None else (kind,))
    return await _answer(request, resources, identity, slot, version, download, nonce)


@_get_and_head("/models/{device_model}/{name}/{version}")
async def get_model(
    *,
    request: Request,
    identity: KnownToken,
    resources: Opened,
    device_model: DeviceModelPath,
    name: ModelName,
    version: ModelVersion,
    download: Download = False,
    nonce: NonceQuery = None,
) -> Response:
    """A model of a version, or the one that the device should run: metadata, or the binary."""
    slot = Slot(device_model, MODEL_KINDS, name)
    return await _answer(request, resources, identity, slot, version, download, nonce)


@router.get("/release-counters/{device_model}/{kind}")
async def get_release_counter(
    _: User,
    connection: Transaction,
    device_model: DeviceModelPath,
    kind: Literal["firmware-bundle", "esp-image", "model"],
) -> ReleaseCounter:
    """The counter to sign the next release with."""
    newest = await ReleaseRepository(connection).newest_counter([device_model], kind)
    return ReleaseCounter(device_model=device_model, kind=kind, newest=newest, next=newest + 1)


async def _answer(  # noqa: PLR0917 - all that two routes have in common
    request: Request,
    resources: Resources,
    identity: Identity,
    slot: Slot,
    version: str,
    download: bool,
    nonce: str | None,
) -> Response:
    latest = version == LATEST
    offered = await fetch(resources, identity, slot, None if latest else version)
    is_device = identity.role is Role.DEVICE
    signed = {}
    if nonce is not None and latest and is_device:
        asked = Nonce(nonce, identity.subject, slot.question())
        signed = sign_check_in(resources.online_key, asked, offered, resources.clock())
    if isinstance(offered, Denied):
        raise refuse(offered, signed, is_device=is_device)
    if not wants_binary(request, download):
        return answer_metadata(request, offered, signed)
    return await _send(request, resources, offered.release, identity, latest=latest)


async def _send(
    request: Request, resources: Resources, release: Release, identity: Identity, *, latest: bool
) -> Response:
    file = StoredFile(
        lake.FIRMWARE, release.object_key, release.size_bytes, release.sha256, not latest
    )
    sent = await send_file(request, resources.deliveries, file, identity)
    begins = sent.headers.get("content-range", "bytes 0-").startswith("bytes 0-")
    if request.method == "GET" and sent.status_code in {200, 206, 302} and begins:
        _downloads.add(1, {"kind": release.kind, "device_model": release.device_model})
    return sent
