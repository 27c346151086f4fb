"""The metadata of a release as JSON, encoded once: only its end differs from device to device."""

from base64 import b64encode
from typing import Final
from uuid import UUID

import msgspec

from ota_api.releases.repository import MODEL_KINDS, Release
from zenthos_core.manifest import Manifest

_encoder: Final = msgspec.json.Encoder()


def binary_path(release: Release) -> str:
    """Of the route that sends its binary."""
    if release.kind in MODEL_KINDS:
        return f"/models/{release.device_model}/{release.name}/{release.version}"
    return f"/firmware/{release.device_model}/{release.version}"


def binary_url(release: Release, base_url: str) -> str:
    """Where its binary is; `base_url` is the server as others reach it."""
    return f"{base_url.rstrip('/')}{binary_path(release)}?download=true"


def encode_metadata(release: Release, manifest: Manifest, base_url: str) -> bytes:
    """ReleaseMetadata without what is the device's own, and without its closing brace."""
    encoded = _encoder.encode(
        {
            "device_model": release.device_model,
            "kind": release.kind,
            "name": release.name,
            "version": release.version,
            "binary_url": binary_url(release, base_url),
            "sha256": release.sha256,
            "size_bytes": release.size_bytes,
            "manifest": b64encode(release.manifest).decode(),
            "signature": b64encode(release.signature).decode(),
            "key_id": release.key_id,
            "release_counter": release.release_counter,
            "expires": int(release.expires_at.timestamp()),
            "uploaded_at": release.uploaded_at,
            "required": release.required,
            "rollout_percentage": release.rollout_percentage,
            "release_notes": release.release_notes,
            "requires": manifest.requires,
            "min_firmware": manifest.requires.min_firmware,
        }
    )
    return encoded[:-1]


def complete(
    metadata: bytes, rollout: UUID | None, deployment_id: int | None, members: dict[str, str]
) -> bytes:
    """The whole answer; `members` are the signature's."""
    own = {"rollout": rollout, "deployment_id": deployment_id, **members}
    return metadata + b"," + _encoder.encode(own)[1:]
