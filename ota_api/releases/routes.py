"""Releases: CI and the lineage publish them, devices fetch them."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from ota_api.auth import KnownToken, User
from ota_api.fields import DeviceModelPath
from ota_api.releases.answers import LATEST, Asked, answer
from ota_api.releases.repository import (
    FIRMWARE_KINDS,
    MODEL_KINDS,
    ReleaseRepository,
    Slot,
)
from ota_api.releases.schemas import (
    ReleaseCounter,
    ReleaseMetadata,
)
from ota_api.resources import Opened, Transaction
from zenthos_core.manifest import FIRMWARE_VERSION, MODEL_VERSION, RELEASE_NAME

router = APIRouter(tags=["releases"])

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
    return await answer(request, resources, identity, Asked(slot, version, download, nonce))


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
    return await answer(request, resources, identity, Asked(slot, version, download, nonce))


@router.get("/release-counters/{device_model}/{kind}")
async def get_release_counter(
    _: User,
    connection: Transaction,
    device_model: DeviceModelPath,
    kind: Literal["firmware-bundle", "esp-image", "model"],
) -> ReleaseCounter:
    """The counter to sign the next release with."""
    newest = (await ReleaseRepository(connection).newest_counters([device_model], kind))[
        device_model
    ]
    return ReleaseCounter(device_model=device_model, kind=kind, newest=newest, next=newest + 1)
