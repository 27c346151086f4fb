"""Releases: CI and the lineage publish them, devices fetch them."""

from base64 import b64encode
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from opentelemetry import metrics

from ota_api.auth import Known, User
from ota_api.downloads import StoredFile, send_file, wants_binary
from ota_api.fields import DeviceModelPath
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
from ota_api.releases.service import LATEST, find_release
from ota_api.resources import Opened, Transaction
from zenthos_core import lake
from zenthos_core.manifest import FIRMWARE_VERSION, MODEL_VERSION, RELEASE_NAME

router = APIRouter(tags=["releases"])

ModelName = Annotated[str, Path(pattern=f"^{RELEASE_NAME.pattern}$")]
FirmwareVersion = Annotated[str, Path(pattern=f"^({LATEST}|{FIRMWARE_VERSION.pattern})$")]
ModelVersion = Annotated[str, Path(pattern=f"^({LATEST}|{MODEL_VERSION.pattern})$")]
FirmwareKind = Literal["firmware-bundle", "esp-image"]
Download = Annotated[bool, Query(description="Send the binary; so does Accept: octet-stream.")]

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
    identity: Known,
    resources: Opened,
    connection: Transaction,
    device_model: DeviceModelPath,
    version: FirmwareVersion,
    kind: FirmwareKind | None = None,
    download: Download = False,
) -> ReleaseMetadata | Response:
    """Firmware of a version, or the newest that has not expired: metadata, or the binary."""
    slot = Slot(device_model, FIRMWARE_KINDS if kind is None else (kind,))
    releases = ReleaseRepository(connection)
    release = await find_release(resources, releases, slot, version, identity)
    binary = wants_binary(request, download)
    return await _answer(request, resources, release, binary=binary, latest=version == LATEST)


@_get_and_head("/models/{device_model}/{name}/{version}")
async def get_model(
    *,
    request: Request,
    identity: Known,
    resources: Opened,
    connection: Transaction,
    device_model: DeviceModelPath,
    name: ModelName,
    version: ModelVersion,
    download: Download = False,
) -> ReleaseMetadata | Response:
    """A model of a version, or the newest that has not expired: metadata, or the binary."""
    slot = Slot(device_model, MODEL_KINDS, name)
    releases = ReleaseRepository(connection)
    release = await find_release(resources, releases, slot, version, identity)
    binary = wants_binary(request, download)
    return await _answer(request, resources, release, binary=binary, latest=version == LATEST)


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


async def _answer(
    request: Request, resources: Opened, release: Release, *, binary: bool, latest: bool
) -> ReleaseMetadata | Response:
    if not binary:
        return _metadata(release, resources.settings.ota_url)
    file = StoredFile(
        lake.FIRMWARE, release.object_key, release.size_bytes, release.sha256, not latest
    )
    sent = await send_file(request, resources.store, file)
    begins = sent.headers.get("content-range", "bytes 0-").startswith("bytes 0-")
    if request.method == "GET" and sent.status_code in {200, 206} and begins:
        _downloads.add(1, {"kind": release.kind, "device_model": release.device_model})
    return sent


def _metadata(release: Release, base_url: str) -> ReleaseMetadata:
    return ReleaseMetadata(
        device_model=release.device_model,
        kind=release.kind,
        name=release.name,
        version=release.version,
        binary_url=binary_url(release, base_url),
        sha256=release.sha256,
        size_bytes=release.size_bytes,
        manifest=b64encode(release.manifest).decode(),
        signature=b64encode(release.signature).decode(),
        key_id=release.key_id,
        release_counter=release.release_counter,
        expires=int(release.expires_at.timestamp()),
        uploaded_at=release.uploaded_at,
        required=release.required,
        rollout_percentage=release.rollout_percentage,
        release_notes=release.release_notes,
    )


def binary_url(release: Release, base_url: str) -> str:
    if release.kind in MODEL_KINDS:
        path = f"models/{release.device_model}/{release.name}/{release.version}"
    else:
        path = f"firmware/{release.device_model}/{release.version}"
    return f"{base_url.rstrip('/')}/{path}?download=true"
