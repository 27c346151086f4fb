"""What a submission holds: hashes in one pass, and whether the binary is what its kind says.

1. A bundle is looked into by zenthos_core.bundles, an ESP image by zenthos_core.esp_image; a model
   is any bytes, for the device's interpreter to read.
2. An object's name says its format.
"""

import hashlib
from typing import BinaryIO, Final, NamedTuple

from zenthos_core import lake
from zenthos_core.bundles import check_bundle
from zenthos_core.errors import ManifestError
from zenthos_core.esp_image import MAX_IMAGE_BYTES, check_image
from zenthos_core.manifest import Manifest

CHUNK_BYTES: Final = 1024 * 1024


class Digests(NamedTuple):
    """Of a binary; SHA-1 and MD5 are for DDI, whose clients check them too."""

    size: int
    sha256: str
    sha1: str
    md5: str


def digest(file: BinaryIO) -> Digests:
    """From the beginning to the end, in chunks."""
    sha256 = hashlib.sha256()
    others = hashlib.sha1(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    size = 0
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        size += len(chunk)
        for each in (sha256, *others):
            each.update(chunk)
    return Digests(size, sha256.hexdigest(), *(each.hexdigest() for each in others))


def check_digests(manifest: Manifest, found: Digests) -> None:
    """The signed size and SHA-256, or ManifestError."""
    if found.size != manifest.size:
        raise ManifestError(f"binary of {found.size} bytes; the manifest says {manifest.size}")
    if found.sha256 != manifest.sha256:
        raise ManifestError("the binary's SHA-256 is not the manifest's")


def check_contents(manifest: Manifest, file: BinaryIO) -> str:
    """Rule 1, or ManifestError; the suffix of the object's name."""
    if manifest.kind == "firmware-bundle":
        return check_bundle(file).format.value
    if manifest.kind == "esp-image":
        file.seek(0)
        image = file.read(MAX_IMAGE_BYTES + 1)
        check_image(image, chip=manifest.chip, version=manifest.version)
        return ".bin"
    return ".tflite"


def object_key(manifest: Manifest, device_model: str, suffix: str) -> str:
    """Where the binary is kept for a device model."""
    if manifest.kind == "model":
        return lake.model_key(device_model, manifest.name, manifest.version, manifest.sha256)
    return lake.firmware_key(device_model, manifest.version, manifest.sha256, suffix)
