"""Release manifests: what is signed, and when a signed one may be accepted.

Rules, in the order they are checked; nothing after a broken rule is looked at:

1. The manifest is at most 4 KiB.
2. A key in `keys.json` signed exactly these bytes (detached Ed25519).
3. It parses, its `spec_version` is 1, and its `key_id` is that of the signing key.
4. That key has not expired and may sign this kind for these device models.
5. The manifest has not expired, and was made before it expires.
6. Name, version and device models are well-formed: firmware vMAJOR.MINOR.PATCH, model
   m-YYYYMMDD-<sha>; models state their input shape, output classes and quantization.
7. The binary has the signed size and SHA-256.
8. `release_counter` exceeds the newest one accepted before for each device model, by at most 1000.
"""

import hashlib
import re
from base64 import b64decode
from collections.abc import Collection
from typing import Any, Final

import msgspec

from zenthos_core.errors import ManifestError
from zenthos_core.signing import ReleaseKey, TrustedKeys, key_id, public_half, sign, verifies
from zenthos_core.topics import DEVICE_MODEL

SPEC_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 4096
MAX_COUNTER_STEP: Final = 1000

KINDS: Final = ("firmware-bundle", "esp-image", "model")
FIRMWARE_VERSION: Final = re.compile(
    r"v(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})"
)
MODEL_VERSION: Final = re.compile(r"m-20[0-9]{6}-[0-9a-f]{7,40}")
RELEASE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Requires(msgspec.Struct, frozen=True, omit_defaults=True):
    """What must be on the device already."""

    min_firmware: str | None = None
    payload_schema: int | None = None


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the binary comes from: enough to find the readings behind a prediction."""

    code_commit: str | None = None
    run_id: str | None = None
    dataset_partitions: str | None = None
    dataset_sha256: str | None = None
    feature_schema: str | None = None
    mlflow_model: str | None = None
    metrics: dict[str, float] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a release key signs. Times are UTC epoch seconds."""

    spec_version: int
    kind: str
    name: str
    version: str
    device_models: list[str]
    chip: str
    release_counter: int
    size: int
    sha256: str
    created: int
    expires: int
    key_id: str
    requires: Requires = Requires()
    lineage: Lineage = Lineage()
    input_shape: list[int] | None = None
    output_classes: list[str] | None = None
    quantization: dict[str, Any] | None = None
    arena_bytes: int | None = None


class SignedManifest(msgspec.Struct, frozen=True):
    """The exact signed bytes and the detached signature; never re-serialised."""

    manifest: bytes
    signature: bytes


def sign_manifest(manifest: Manifest, private_key: bytes) -> SignedManifest:
    """Serialise once and sign those bytes.

    Raises:
        ManifestError: if the manifest is too large or names another key.
    """
    if manifest.key_id != key_id(public_half(private_key)):
        raise ManifestError("the manifest's key_id is not that of the signing key")
    document = msgspec.json.encode(manifest)
    if len(document) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"manifest of {len(document)} bytes; at most {MAX_MANIFEST_BYTES}")
    return SignedManifest(document, sign(private_key, document))


def verify_manifest(signed: SignedManifest, trusted: TrustedKeys, *, now: float) -> Manifest:
    """Rules 1 to 6; `now` in epoch seconds. Returns the manifest, or raises ManifestError."""
    if len(signed.manifest) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            f"manifest of {len(signed.manifest)} bytes; at most {MAX_MANIFEST_BYTES}"
        )
    signer = next((key for key in trusted.keys if _signed_by(key, signed)), None)
    if signer is None:
        raise ManifestError("no key in keys.json signed this manifest")
    try:
        manifest = msgspec.json.decode(signed.manifest, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestError(f"manifest: {error}") from None
    if manifest.spec_version != SPEC_VERSION:
        raise ManifestError(f"spec_version {manifest.spec_version} is not {SPEC_VERSION}")
    if manifest.key_id != signer.key_id:
        raise ManifestError(f"signed by {signer.key_id} but names key {manifest.key_id}")
    if signer.expires <= now:
        raise ManifestError(f"key {signer.key_id} has expired: sign with a current one")
    if not signer.may_sign(manifest.kind, manifest.device_models):
        raise ManifestError(
            f"key {signer.key_id} may not sign {manifest.kind} for {manifest.device_models}"
        )
    if not manifest.created < manifest.expires or manifest.expires <= now:
        raise ManifestError("the manifest has expired: sign the release again")
    _check_wording(manifest)
    return manifest


def verify_binary(manifest: Manifest, binary: bytes) -> None:
    """Rule 7; raises ManifestError."""
    if len(binary) != manifest.size:
        raise ManifestError(f"binary of {len(binary)} bytes; the manifest says {manifest.size}")
    if hashlib.sha256(binary).hexdigest() != manifest.sha256:
        raise ManifestError("the binary's SHA-256 is not the manifest's")


def verify_counter(manifest: Manifest, newest: Collection[int]) -> None:
    """Rule 8; `newest` are the highest counters accepted, one for each of its device models and of
    its kind, 0 for none."""
    least, most = max(newest) + 1, min(newest) + MAX_COUNTER_STEP
    if not least <= manifest.release_counter <= most:
        raise ManifestError(f"release_counter {manifest.release_counter} must be {least} to {most}")


def _signed_by(key: ReleaseKey, signed: SignedManifest) -> bool:
    return verifies(b64decode(key.public_key), signed.manifest, signed.signature)


def _check_wording(manifest: Manifest) -> None:
    """Rule 6."""
    if manifest.kind not in KINDS:
        raise ManifestError(f"kind {manifest.kind!r} is none of {', '.join(KINDS)}")
    is_model = manifest.kind == "model"
    least = manifest.requires.min_firmware
    if least is not None and not FIRMWARE_VERSION.fullmatch(least):
        raise ManifestError(f"requires.min_firmware {least!r} is not a version such as v1.2.3")
    if not (MODEL_VERSION if is_model else FIRMWARE_VERSION).fullmatch(manifest.version):
        raise ManifestError(f"version {manifest.version!r} is not a {manifest.kind} version")
    if not RELEASE_NAME.fullmatch(manifest.name):
        raise ManifestError(f"name {manifest.name!r}: use a-z, 0-9 and dashes")
    if not manifest.device_models or not all(map(DEVICE_MODEL.fullmatch, manifest.device_models)):
        raise ManifestError(f"device_models {manifest.device_models} are not model names")
    if is_model and not (
        manifest.input_shape and manifest.output_classes and manifest.quantization
    ):
        raise ManifestError("a model states input_shape, output_classes and quantization")
