"""CI and the lineage publish releases."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response

from ota_api.auth import Publisher, PublisherToken, Trail
from ota_api.openapi import same_again
from ota_api.releases.metadata import binary_url
from ota_api.releases.reading import MULTIPART, read_submission
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, ReleaseRepository
from ota_api.releases.schemas import Chosen, Publication, Published
from ota_api.releases.service import publish
from ota_api.releases.staging import Staged, stage
from ota_api.resources import Opened, Resources, Transaction
from ota_api.standing import check_standing

router = APIRouter(tags=["releases"])
PUBLISH_PATHS: Final = ("/firmware/publish", "/models/publish")

_FILE: Final = {"type": "string", "format": "binary"}
_FORM: Final = {
    "type": "object",
    "required": ["manifest", "signature"],
    "properties": {
        "manifest": {**_FILE, "description": "The exact signed bytes."},
        "signature": {**_FILE, "description": "64 bytes, or base64 of them."},
        "binary": {**_FILE, "description": "At most 100 MiB; a reissue needs none."},
        "device_model": {"type": "string", "description": "One that the manifest names."},
        "version": {"type": "string", "description": "As the manifest has it."},
        **Chosen.model_json_schema()["properties"],
    },
}
_PUBLISH: Final[dict[str, Any]] = {
    "status_code": HTTPStatus.CREATED,
    "responses": same_again(Published),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": Publication.model_json_schema()},
                MULTIPART: {"schema": _FORM},
            },
        }
    },
}


def _staged(kinds: tuple[str, ...]) -> Callable[..., Awaitable[Staged]]:
    async def read(request: Request, publisher: PublisherToken, resources: Opened) -> Staged:
        """The body is read once the token is known to hold: it may be large."""
        async with resources.pool.connection() as connection:
            await check_standing(connection, publisher)
        async with read_submission(request) as submission:
            return await stage(resources, submission, kinds)

    return read


Firmware = Annotated[Staged, Depends(_staged(FIRMWARE_KINDS))]
Model = Annotated[Staged, Depends(_staged(MODEL_KINDS))]


@router.post("/firmware/publish", **_PUBLISH)
async def publish_firmware(
    *,
    staged: Firmware,
    publisher: Publisher,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> Published:
    """Publish firmware. The same binary again is answered with the release there is (200)."""
    created = await publish(resources, connection, staged, publisher, trail)
    return await _published(resources, ReleaseRepository(connection), staged, created, response)


@router.post("/models/publish", **_PUBLISH)
async def publish_model(
    *,
    staged: Model,
    publisher: Publisher,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> Published:
    """Publish a model. The same binary again is answered with the release there is (200)."""
    created = await publish(resources, connection, staged, publisher, trail)
    return await _published(resources, ReleaseRepository(connection), staged, created, response)


async def _published(
    resources: Resources,
    releases: ReleaseRepository,
    staged: Staged,
    created: bool,
    response: Response,
) -> Published:
    release = await releases.find(staged.slot, staged.manifest.version)
    assert release is not None, "it was published in this transaction"  # noqa: S101
    url = binary_url(release, resources.settings.ota_url)
    if not created:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = url
    return Published(id=release.id, status="published", url=url)
