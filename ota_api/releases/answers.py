"""What a device or user is told of a release: metadata with its ETag, or why there is none.

1. The ETag is of the exact answer, so it changes with the device's deployment too.
2. A device that sends a nonce with its question for the latest gets a signed answer: the device,
   the nonce, what was asked, and the SHA-256 of the manifest offered, "" for none. Such an answer
   is always whole, never 304; an error about the release carries it too.
3. Nobody but the device itself may store an answer, nor use it again without asking.
"""

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import msgspec
from fastapi import Request, Response

from ota_api.delivery.blocks import StoredFile
from ota_api.delivery.service import send_file, wants_binary
from ota_api.keys.service import OnlineKey
from ota_api.ranges import matches_etag
from ota_api.releases.counting import count_download
from ota_api.releases.entitlement import NOTHING_PUBLISHED, Denied, Entitled
from ota_api.releases.fetching import fetch
from ota_api.releases.metadata import complete
from ota_api.releases.repository import Release, Slot
from ota_api.resources import Resources
from zenthos_core import lake
from zenthos_core.errors import NotEntitledError, NotFoundError
from zenthos_core.tokens import Identity, Role

LATEST: Final = "latest"
_HEADERS: Final = {"Cache-Control": "private, no-cache", "Vary": "Accept, Authorization"}


@dataclass(frozen=True)
class Asked:
    """What a request is for; a version or LATEST, metadata or the binary."""

    slot: Slot
    version: str
    download: bool = False
    nonce: str | None = None


async def answer(
    request: Request, resources: Resources, identity: Identity, asked: Asked
) -> Response:
    """Metadata or the binary.

    Raises:
        NotEntitledError: where a device may have none of what there is.
        NotFoundError: where there is nothing.
    """
    latest = asked.version == LATEST
    offered = await fetch(resources, identity, asked.slot, None if latest else asked.version)
    is_device = identity.role is Role.DEVICE
    signed: dict[str, str] = {}
    if asked.nonce is not None and latest and is_device:
        nonce = Nonce(asked.nonce, identity.subject, asked.slot.question())
        signed = sign_check_in(resources.online_key, nonce, offered, resources.clock())
    if isinstance(offered, Denied):
        raise refuse(offered, signed, is_device=is_device)
    if not wants_binary(request, asked.download):
        return answer_metadata(request, offered, signed)
    return await _send(request, resources, offered.release, identity, latest=latest)


async def _send(
    request: Request, resources: Resources, release: Release, identity: Identity, *, latest: bool
) -> Response:
    file = StoredFile(
        lake.FIRMWARE, release.object_key, release.size_bytes, release.sha256, not latest
    )
    sent = await send_file(request, resources.deliveries, file, identity)
    count_download(request, sent, release.kind, release.device_model)
    return sent


@dataclass(frozen=True)
class Nonce:
    """What a device wants signed: that this answer is to this question, of now."""

    value: str
    device_id: str
    asked: str
    """The path, and `?kind=` where it was given."""


def sign_check_in(
    key: OnlineKey, nonce: Nonce, offered: Entitled | Denied, now: float
) -> dict[str, str]:
    """Rule 2: `checkin`, the exact signed bytes, and `checkin_signature`, both in base64."""
    manifest = b"" if isinstance(offered, Denied) else offered.release.manifest
    document = msgspec.json.encode(
        {
            "device_id": nonce.device_id,
            "nonce": nonce.value,
            "asked": nonce.asked,
            "manifest_sha256": hashlib.sha256(manifest).hexdigest() if manifest else "",
            "issued_at": int(now),
        }
    )
    return {
        "checkin": b64encode(document).decode(),
        "checkin_signature": b64encode(key.sign(document)).decode(),
    }


def refuse(denied: Denied, signed: dict[str, str], *, is_device: bool) -> Exception:
    """The error to raise: nothing is there, or not for this device."""
    error: NotFoundError | NotEntitledError
    if denied.reason == NOTHING_PUBLISHED or not is_device:
        error = NotFoundError(denied.text)
    else:
        error = NotEntitledError(denied.text)
    error.members = {"reason": denied.reason, **signed}
    return error


def answer_metadata(request: Request, offered: Entitled, signed: dict[str, str]) -> Response:
    """200, or 304 by rule 1."""
    rollout, deployment = offered.rollout, offered.deployment
    body = complete(
        offered.candidate.metadata,
        rollout.id if rollout else None,
        deployment.id if deployment else None,
        signed,
    )
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, **_HEADERS}
    if not signed and matches_etag(request.headers.get("if-none-match"), etag):
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    return Response(body, HTTPStatus.OK, headers, "application/json")
