"""From files on disk to a release of ours, as if it were published over HTTP."""

import binascii
from base64 import b64decode
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from anyio import to_thread
from psycopg import AsyncConnection

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import SYSTEM_ROLE, Actor, AuditTrail
from ota_api.auth import PUBLISH
from ota_api.hooks.bundles import AssetError, Bundle, check_stem
from ota_api.releases.reading import Submission
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS
from ota_api.releases.schemas import MAX_FILE_BYTES, Chosen
from ota_api.releases.service import publish
from ota_api.releases.staging import Staged, stage
from ota_api.resources import Resources
from zenthos_core.manifest import MAX_MANIFEST_BYTES, Manifest, SignedManifest
from zenthos_core.tokens import Identity, Role

MAX_SIGNATURE_BYTES: Final = 200
SIGNATURE_BYTES: Final = 64
MOST_BYTES: Final = (MAX_MANIFEST_BYTES, MAX_SIGNATURE_BYTES, MAX_FILE_BYTES)
"""Of manifest, signature and binary."""


class FetchedBundle(NamedTuple):
    """A bundle on disk."""

    bundle: Bundle
    manifest: Path
    signature: Path
    binary: Path


async def stage_bundle(resources: Resources, fetched: FetchedBundle) -> Staged:
    """Verify and store it; nothing is locked meanwhile.

    Raises:
        AssetError: for files that are not as their names say.
        ManifestError, ConflictError: as publishing does.
    """
    signed = await to_thread.run_sync(_read, fetched)
    chosen = Chosen(rollout_percentage=resources.settings.github_rollout_percentage)
    with fetched.binary.open("rb") as binary:
        submission = Submission(signed, binary, chosen)
        return await stage(resources, submission, FIRMWARE_KINDS + MODEL_KINDS)


async def publish_staged(
    resources: Resources, connection: AsyncConnection, repository: str, staged: Staged
) -> str:
    """Publish it, in the name of the GitHub repository; says what is published.

    Raises:
        ManifestError, ConflictError: as publishing does.
    """
    actor = f"github:{repository}"
    publisher = Identity(actor, Role.OPERATOR, frozenset({PUBLISH}), int(resources.clock()))
    trail = AuditTrail(AuditRepository(connection), Actor(actor, SYSTEM_ROLE))
    created = await publish(resources, connection, staged, publisher, trail)
    name = f"{staged.manifest.name} {staged.manifest.version}"
    return name if created else f"{name} (was there already)"


def _read(fetched: FetchedBundle) -> SignedManifest:
    document = fetched.manifest.read_bytes()
    try:
        check_stem(fetched.bundle, msgspec.json.decode(document, type=Manifest))
        signature = b64decode(fetched.signature.read_bytes().strip(), validate=True)
    except msgspec.DecodeError as error:
        raise AssetError(f"{fetched.bundle.manifest.name}: {error}") from None
    except binascii.Error:
        signature = b""
    if len(signature) != SIGNATURE_BYTES:
        name = fetched.bundle.signature.name
        raise AssetError(f"{name} is not the base64 of an Ed25519 signature")
    return SignedManifest(document, signature)
