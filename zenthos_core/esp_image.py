"""Images of applications for Espressif's chips: what they are, and whether they are whole.

Rules, in the order they are checked:

1. The image is at most 16 MiB, the flash of the largest board, and its chip is one that esptool
   knows.
2. esptool can read it: magic, 1 to 16 segments, each within the file.
3. It is for that chip, by the id in its header.
4. The checksum over its segments is right.
5. A SHA-256 is appended, and is that of all before it. Nothing follows but the signature of secure
   boot: a sector of 4 KiB at the next boundary of 4 KiB.
6. Its first segment begins with the app descriptor, whose version is the release's, letter for
   letter.

Source: esp-idf, "App Image Format", and components/bootloader_support/include/esp_app_format.h.
"""

import hashlib
import struct
from typing import Any, Final, NamedTuple

from zenthos_core.errors import ManifestError

MAX_IMAGE_BYTES: Final = 16 * 1024 * 1024
MAX_SEGMENTS: Final = 16
MAGIC: Final = 0xE9
HEADER_BYTES: Final = 24
SECTOR_BYTES: Final = 4096
SIGNATURE_MAGIC: Final = 0xE7

DESCRIPTOR_MAGIC: Final = 0xABCD5432
DESCRIPTOR_BYTES: Final = 256
_DESCRIPTOR: Final = struct.Struct("<II8x32s32s16s16s32s32s80x")


class Description(NamedTuple):
    """What an image says of itself."""

    chip_id: int
    version: str
    project: str
    compiled: str
    idf_version: str
    secure_version: int
    segments: int


def chip_ids() -> dict[str, int]:
    """The chips whose images name them, such as `esp32s3`, and by which number."""
    from esptool.targets import CHIP_DEFS

    ids = {name: getattr(chip, "IMAGE_CHIP_ID", None) for name, chip in CHIP_DEFS.items()}
    return {name: number for name, number in ids.items() if number is not None}


def check_image(image: bytes, *, chip: str, version: str) -> Description:
    """Rules 1 to 6; ManifestError says which is broken."""
    if len(image) > MAX_IMAGE_BYTES:
        raise ManifestError(
            f"image of {len(image)} bytes: the largest board has {MAX_IMAGE_BYTES} of flash"
        )
    ids = chip_ids()
    if chip not in ids:
        raise ManifestError(f"chip {chip!r} has no esp-image: use one of {', '.join(sorted(ids))}")
    parsed = _parse(image, chip)
    _check_chip(parsed.chip_id, chip, ids)
    if parsed.calculate_checksum() != parsed.checksum:
        raise ManifestError("the checksum of the image's segments is wrong: build it again")
    _check_digest(image, parsed)
    found = _describe(parsed)
    if found.version != version:
        raise ManifestError(
            f"the image says it is version {found.version!r}, the manifest {version!r}:"
            " build it with that version (version.txt or CONFIG_APP_PROJECT_VER)"
        )
    return found


def _parse(image: bytes, chip: str) -> Any:  # esptool's classes have no types
    """Rule 2."""
    from esptool.bin_image import LoadFirmwareImage
    from esptool.util import FatalError

    if len(image) < HEADER_BYTES or image[0] != MAGIC:
        raise ManifestError(f"not an ESP image: it does not begin with {MAGIC:#x}")
    if not 1 <= image[1] <= MAX_SEGMENTS:
        raise ManifestError(f"not an ESP image: {image[1]} segments, of 1 to {MAX_SEGMENTS}")
    try:
        return LoadFirmwareImage(chip, image)
    except (FatalError, RuntimeError, struct.error, IndexError, TypeError) as error:
        raise ManifestError(f"the ESP image cannot be read, it may be cut off: {error}") from None


def _check_chip(found: int, chip: str, ids: dict[str, int]) -> None:
    """Rule 3."""
    if found != ids[chip]:
        name = next((n for n, number in ids.items() if number == found), "a chip unknown here")
        raise ManifestError(
            f"the image is for {name} (chip id {found}), the manifest for {chip} ({ids[chip]})"
        )


def _check_digest(image: bytes, parsed: Any) -> None:
    """Rule 5."""
    if not parsed.append_digest:
        raise ManifestError("the image has no SHA-256 appended: build it with a digest")
    end = parsed.data_length
    if hashlib.sha256(image[:end]).digest() != image[end : end + 32]:
        raise ManifestError("the SHA-256 appended to the image is not that of its bytes")
    rest = image[end + 32 :]
    if not rest:
        return
    padding = -(end + 32) % SECTOR_BYTES
    sector = rest[padding:]
    signed = len(sector) == SECTOR_BYTES and sector[0] == SIGNATURE_MAGIC
    if not signed or rest[:padding].strip(b"\xff"):
        raise ManifestError(f"{len(rest)} bytes follow the image that are no part of it")


def _describe(parsed: Any) -> Description:
    """Rule 6, up to the version."""
    data = parsed.segments[0].data[:DESCRIPTOR_BYTES]
    if len(data) < DESCRIPTOR_BYTES or _magic(data) != DESCRIPTOR_MAGIC:
        raise ManifestError("the image has no app descriptor: it is no application of ESP-IDF")
    _, secure, version, project, time, date, idf, _ = _DESCRIPTOR.unpack(data)
    return Description(
        chip_id=parsed.chip_id,
        version=_text(version),
        project=_text(project),
        compiled=f"{_text(date)} {_text(time)}".strip(),
        idf_version=_text(idf),
        secure_version=secure,
        segments=len(parsed.segments),
    )


def _magic(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
