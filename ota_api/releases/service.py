"""Publishing releases.

A publication is accepted by these rules, in this order (1 to 3 in zenthos_core.manifest):

1. A release key that the root trusts signed the manifest, for this kind and these device models.
2. The manifest is well-formed and has not expired.
3. The binary has the signed size and SHA-256.
4. The kind belongs to the route: firmware or model.
5. The version is new for each of its device models. The same binary under the same version again
   is answered with the release there is; other bytes are a conflict. Releases never change.
6. The release_counter exceeds that of every release of this kind for these models, by at most 1000.
7. The binary is stored and read back whole before the rows that name it exist.
"""

import hashlib
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from anyio import to_thread
from opentelemetry import trace

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.releases.repository import (
    FIRMWARE_KINDS,
    MODEL_KINDS,
    Release,
    ReleaseRepository,
    Slot,
)
from ota_api.releases.schemas import Publication
from ota_api.resources import Resources
from ota_api.rollouts.implicit import begin_implicit
from ota_api.rollouts.repository import RolloutRepository
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import (
    ArchiveError,
    ConflictError,
    ManifestError,
    NotFoundError,
)
from zenthos_core.manifest import (
    Manifest,
    SignedManifest,
    verify_binary,
    verify_counter,
    verify_manifest,
)
from zenthos_core.signing import TrustedKeys
from zenthos_core.tokens import Identity

LATEST_EXPIRY_S: Final = 4_102_444_800
"""The first second of 2100."""

_SUFFIX: Final = {"firmware-bundle": ".zip", "esp-image": ".bin"}
_tracer = trace.get_tracer(__name__)


async def publish(
    resources: Resources,
    releases: ReleaseRepository,
    publication: Publication,
    *,
    kinds: tuple[str, ...],
    publisher: Identity,
    trail: AuditTrail,
) -> tuple[Release, bool]:
    """The published release for its first device model, and whether it is new.

    Raises:
        ManifestError: by rules 1 to 4 and 6.
        ConflictError: by rules 5 and 6.
    """
    signed = SignedManifest(publication.manifest, publication.signature)
    trusted = resources.trusted_keys.load().keys
    with _tracer.start_as_current_span("ota.verify_release"):
        manifest = await to_thread.run_sync(
            _verify, signed, publication.binary_data, trusted, resources.clock()
        )
    if manifest.kind not in kinds:
        raise ManifestError(f"this route publishes {' and '.join(kinds)}, not {manifest.kind}")
    await releases.lock_publishing()
    if existing := await _find_existing(releases, manifest):
        return existing, False
    await _check_counter(releases, manifest)
    keys = {model: _object_key(manifest, model) for model in manifest.device_models}
    with _tracer.start_as_current_span("ota.store_release"):
        store = partial(_store_verified, resources.store, binary=publication.binary_data)
        for key in keys.values():
            await to_thread.run_sync(store, key)
    chosen = publication.model_dump(include={"required", "rollout_percentage", "release_notes"})
    release_id = await releases.insert(
        signed, manifest, keys, {**chosen, "published_by": publisher.subject}
    )
    await begin_implicit(
        RolloutRepository(releases.connection),
        release_id,
        manifest.device_models,
        publication.rollout_percentage,
        by=publisher.subject,
        now=datetime.fromtimestamp(resources.clock(), UTC),
    )
    await trail.record(
        Action.RELEASE_PUBLISH,
        f"release {manifest.name} {manifest.version}",
        after=_brief(manifest),
    )
    return await _find(releases, _slot(manifest, manifest.device_models[0]), manifest.version), True


def _brief(manifest: Manifest) -> dict[str, Any]:
    """What the audit log says of a release; its row holds the rest."""
    return {
        "kind": manifest.kind,
        "device_models": manifest.device_models,
        "release_counter": manifest.release_counter,
        "sha256": manifest.sha256,
        "key_id": manifest.key_id,
    }


def _verify(signed: SignedManifest, binary: bytes, trusted: TrustedKeys, now: float) -> Manifest:
    """Rules 1 to 3."""
    manifest = verify_manifest(signed, trusted, now=now)
    verify_binary(manifest, binary)
    if len(set(manifest.device_models)) != len(manifest.device_models):
        raise ManifestError("device_models names a model twice")
    if manifest.expires > LATEST_EXPIRY_S:
        raise ManifestError("expires lies beyond the year 2100: is it in seconds?")
    return manifest


async def _find_existing(releases: ReleaseRepository, manifest: Manifest) -> Release | None:
    """Rule 5."""
    slots = [_slot(manifest, model) for model in manifest.device_models]
    found = [await releases.find(slot, manifest.version) for slot in slots]
    taken = [release for release in found if release is not None]
    if not taken:
        return None
    same = all(
        (r.sha256, r.kind, r.name) == (manifest.sha256, manifest.kind, manifest.name) for r in taken
    )
    if same and len(taken) == len(slots):
        return taken[0]
    models = ", ".join(release.device_model for release in taken)
    difference = "for fewer device models" if same else "with other bytes, kind or name"
    raise ConflictError(
        f"{manifest.version} is published for {models} already, {difference}: "
        "a release never changes, publish under a new version"
    )


async def _check_counter(releases: ReleaseRepository, manifest: Manifest) -> None:
    """Rule 6."""
    newest = await releases.newest_counter(manifest.device_models, manifest.kind)
    if manifest.release_counter <= newest:
        raise ConflictError(
            f"release_counter {manifest.release_counter} is taken: sign the manifest again with "
            f"{newest + 1}"
        )
    verify_counter(manifest, newest)


async def _find(releases: ReleaseRepository, slot: Slot, version: str) -> Release:
    release = await releases.find(slot, version)
    if release is None:
        raise NotFoundError(f"no {version} is published for {slot.describe()}")
    return release


def _store_verified(store: BlobStore, key: str, *, binary: bytes) -> None:
    """Rule 7."""
    store.put(lake.FIRMWARE, key, binary)
    stored = store.get(lake.FIRMWARE, key)
    if hashlib.sha256(stored).digest() != hashlib.sha256(binary).digest():
        raise ArchiveError(f"{key} was read back from the store with other bytes: check the store")


def _object_key(manifest: Manifest, device_model: str) -> str:
    if manifest.kind in _SUFFIX:
        return lake.firmware_key(device_model, manifest.version, _SUFFIX[manifest.kind])
    return lake.model_key(device_model, manifest.name, manifest.version)


def _slot(manifest: Manifest, device_model: str) -> Slot:
    """A firmware version is one thing for a device model, whatever its kind and name."""
    if manifest.kind in MODEL_KINDS:
        return Slot(device_model, MODEL_KINDS, manifest.name)
    return Slot(device_model, FIRMWARE_KINDS)
