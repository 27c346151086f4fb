"""A publication up to where its release may be inserted: verified, looked into, stored.

All that takes long happens here, with no transaction open and nothing locked. What the database
would refuse anyway is refused before the upload; it is asked again when the release is inserted.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from anyio import to_thread
from opentelemetry import trace

from ota_api.keys.versions import check_key_version
from ota_api.releases.conflicts import Standing, find_place
from ota_api.releases.contents import (
    Digests,
    check_contents,
    check_digests,
    digest,
    object_key,
)
from ota_api.releases.publications import Publications
from ota_api.releases.reading import Submission
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, ReleaseRepository, Slot
from ota_api.releases.schemas import Chosen
from ota_api.releases.uploads import begin_uploads, store_verified
from ota_api.resources import Resources
from zenthos_core.errors import ManifestError
from zenthos_core.manifest import Manifest, SignedManifest, verify_manifest
from zenthos_core.signing import TrustedKeys

LATEST_EXPIRY_S: Final = 4_102_444_800
"""The first second of 2100."""
_tracer = trace.get_tracer(__name__)


@dataclass(frozen=True)
class Staged:
    """What is ready to be inserted."""

    signed: SignedManifest
    manifest: Manifest
    chosen: Chosen
    digests: Digests | None = None
    keys: dict[str, str] = field(default_factory=dict)
    """Objects that were written, by device model; none for a reissue, or what is there already."""

    @property
    def slot(self) -> Slot:
        """Of its first device model: a firmware version is one thing, whatever kind and name."""
        model = self.manifest.device_models[0]
        if self.manifest.kind in MODEL_KINDS:
            return Slot(model, MODEL_KINDS, self.manifest.name)
        return Slot(model, FIRMWARE_KINDS)


async def stage(resources: Resources, submission: Submission, kinds: tuple[str, ...]) -> Staged:
    """Rules 1 to 6 of ota_api/releases/service.py, and the upload.

    Raises:
        ManifestError, ConflictError, NotFoundError: by those rules.
    """
    trusted = resources.trusted_keys.load()
    with _tracer.start_as_current_span("ota.verify_release"):
        manifest = await to_thread.run_sync(
            verify, submission.signed, trusted.keys, kinds, resources.clock()
        )
        _check_said(manifest, submission)
        digests, suffix = await to_thread.run_sync(_look_into, manifest, submission)
    staged = Staged(submission.signed, manifest, submission.chosen, digests)
    async with resources.pool.connection() as connection:
        await check_key_version(connection, trusted)
        place = await find_place(
            Publications(connection),
            ReleaseRepository(connection),
            submission.signed,
            manifest,
            Standing.of(trusted.keys, resources.clock()),
            reissue=submission.chosen.reissue,
        )
        if place.exists or place.original:
            return staged
        keys = {model: object_key(manifest, model, suffix) for model in manifest.device_models}
        now = datetime.fromtimestamp(resources.clock(), UTC)
        await begin_uploads(connection, keys.values(), now)
    assert submission.binary is not None, "_look_into asks for it"  # noqa: S101
    with _tracer.start_as_current_span("ota.store_release"):
        for key in keys.values():
            await to_thread.run_sync(
                store_verified, resources.store, key, submission.binary, manifest.sha256
            )
    return Staged(submission.signed, manifest, submission.chosen, digests, keys)


def verify(
    signed: SignedManifest, trusted: TrustedKeys, kinds: tuple[str, ...], now: float
) -> Manifest:
    """Rules 1, 2 and 4."""
    manifest = verify_manifest(signed, trusted, now=now)
    if len(set(manifest.device_models)) != len(manifest.device_models):
        raise ManifestError("device_models names a model twice")
    if manifest.expires > LATEST_EXPIRY_S:
        raise ManifestError("expires lies beyond the year 2100: is it in seconds?")
    if manifest.kind not in kinds:
        raise ManifestError(f"this route publishes {' and '.join(kinds)}, not {manifest.kind}")
    return manifest


def _check_said(manifest: Manifest, submission: Submission) -> None:
    model, version = submission.device_model, submission.version
    if model is not None and model not in manifest.device_models:
        told = ", ".join(manifest.device_models)
        raise ManifestError(f"sent for {model}, but the manifest is for {told}")
    if version is not None and version != manifest.version:
        raise ManifestError(f"sent as {version}, but the manifest is of {manifest.version}")


def _look_into(manifest: Manifest, submission: Submission) -> tuple[Digests | None, str]:
    """Rules 3 and 5, and the object's suffix."""
    if submission.binary is None:
        if submission.chosen.reissue:
            return None, ""
        raise ManifestError("send the binary: only a reissue goes without")
    digests = digest(submission.binary)
    check_digests(manifest, digests)
    return digests, check_contents(manifest, submission.binary)
