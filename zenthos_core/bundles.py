"""Firmware bundles: archives that a device unpacks, so that a hostile one is stopped here.

Rules:

1. A bundle is what its first bytes say: a zip (of files for a device of ours), an SWUpdate archive
   (.swu, cpio newc or crc) or a RAUC bundle (squashfs). Anything else is refused.
2. Names in a zip or .swu are relative paths of at most 200 printable characters, without `.`, `..`,
   empty parts, backslashes and colons; no name comes twice, whatever its case, and none lies below
   a file.
3. A zip has files and folders alone: no links, no devices, no encryption; stored or deflated; no
   bytes before it, no comment after it, no ZIP64.
4. A zip has 1 to 2,000 entries and expands to at most 256 MiB, and to at most 100 times its size
   beyond 1 MiB. Each entry is expanded in chunks and counted, whatever its header says; its CRC
   must match.
5. An .swu begins with sw-description, its entries lie within it, it ends with its trailer, and its
   checksums, where it has them, match.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO, Final, NamedTuple

from zenthos_core.errors import ManifestError

MAX_ENTRIES: Final = 2_000
MAX_EXPANDED_BYTES: Final = 256 * 1024 * 1024
MAX_RATIO: Final = 100
RATIO_HOLDS_FROM_BYTES: Final = 1024 * 1024
MAX_DIRECTORY_BYTES: Final = 1024 * 1024
MAX_DESCRIPTION_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024

_PART: Final = re.compile(r"[A-Za-z0-9_+@=,~()\[\] .-]{1,100}")
_END: Final = struct.Struct("<4s4H2IH")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CPIO_HEADER_BYTES: Final = 110
_CPIO_HEADER: Final = re.compile(rb"07070[12][0-9A-Fa-f]{104}")
_CPIO_CRC: Final = b"070702"
_TRAILER: Final = "TRAILER!!!"


class Format(StrEnum):
    """By the suffix of its object."""

    ZIP = ".zip"
    SWU = ".swu"
    RAUC = ".raucb"


_MAGIC: Final = {
    b"PK\x03\x04": Format.ZIP,
    b"070701": Format.SWU,
    b"070702": Format.SWU,
    b"hsqs": Format.RAUC,
}


class Entry(NamedTuple):
    """A file in a bundle."""

    name: str
    size: int


class Bundle(NamedTuple):
    """What a bundle is; a RAUC bundle's files are its installer's to see."""

    format: Format
    entries: list[Entry]


def check_bundle(file: BinaryIO) -> Bundle:
    """Rules 1 to 5; ManifestError says which is broken. The file is read from its beginning."""
    size = file.seek(0, 2)
    file.seek(0)
    begin = file.read(6)
    found = next((kind for magic, kind in _MAGIC.items() if begin.startswith(magic)), None)
    if found is None:
        raise ManifestError(
            "a firmware-bundle is a zip, an SWUpdate archive (.swu) or a RAUC bundle (.raucb):"
            " this is none of them, by its first bytes"
        )
    if found is Format.RAUC:
        return Bundle(found, [])
    entries = list(_check_zip(file, size) if found is Format.ZIP else _check_cpio(file, size))
    return Bundle(found, entries)


def check_name(name: str, taken: dict[str, bool]) -> None:
    """Rule 2; `taken` holds the names so far in lower case, and whether each is a file."""
    folder = name.endswith("/")
    path = name.removesuffix("/")
    parts = path.split("/")
    safe = all(_PART.fullmatch(part) and part.strip(". ") for part in parts)
    if len(name) > 200 or not safe:
        raise ManifestError(f"{name[:80]!r} in the bundle is not a safe relative path")
    key = path.lower()
    above = ["/".join(parts[:n]).lower() for n in range(1, len(parts))]
    below_file = any(taken.get(folder_name) for folder_name in above)
    if key in taken or below_file:
        raise ManifestError(f"{name!r} in the bundle is there twice, or lies below a file")
    taken[key] = not folder
    for folder_name in above:
        taken.setdefault(folder_name, False)


def _check_zip(file: BinaryIO, size: int) -> Iterator[Entry]:
    """Rules 3 and 4."""
    _check_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ManifestError(f"the zip cannot be read: {error}") from None
    if not 1 <= len(infos) <= MAX_ENTRIES:
        raise ManifestError(f"{len(infos)} entries in the zip; 1 to {MAX_ENTRIES} are taken")
    limit = min(MAX_EXPANDED_BYTES, max(RATIO_HOLDS_FROM_BYTES, size * MAX_RATIO))
    taken: dict[str, bool] = {}
    for info in infos:
        _check_zip_entry(info, taken)
        limit -= _expand(file, info, limit)
        yield Entry(info.filename, info.file_size)


def _check_directory(file: BinaryIO, size: int) -> None:
    """The end of the zip as zipfile will find it, before it reads as much as that says."""
    tail_bytes = min(size, _END.size + 20)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    end = tail[-_END.size :]
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06"):
        raise ManifestError("the zip is cut off, or something follows it: make it again")
    _, disk, first_disk, here, entries, directory, offset, comment = _END.unpack(end)
    if tail.startswith(b"PK\x06\x07") or comment or disk or first_disk or here != entries:
        raise ManifestError("the zip has a comment, several parts or ZIP64: make a plain one")
    if directory > MAX_DIRECTORY_BYTES or offset + directory != size - _END.size:
        raise ManifestError("the zip's directory is too large or not where it says")


def _check_zip_entry(info: zipfile.ZipInfo, taken: dict[str, bool]) -> None:
    if info.orig_filename != info.filename:
        raise ManifestError(f"{info.orig_filename[:80]!r} in the bundle is not a safe name")
    check_name(info.filename, taken)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise ManifestError(f"{info.filename!r} in the zip is a link or a device, not a file")
    if info.flag_bits & 0x2041:
        raise ManifestError(f"{info.filename!r} in the zip is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ManifestError(f"{info.filename!r} in the zip is neither stored nor deflated")


def _expand(file: BinaryIO, info: zipfile.ZipInfo, limit: int) -> int:
    """How much the entry expands to: counted, not believed."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
        raise ManifestError(f"{info.filename!r} in the zip is not where its directory says")
    name_bytes, extra_bytes = _LOCAL.unpack(header)[-2:]
    if file.read(name_bytes).decode("utf-8", "replace") != info.filename:
        raise ManifestError(f"{info.filename!r} has another name in its place")
    file.seek(extra_bytes, 1)
    count, crc = 0, 0
    try:
        for chunk in _inflate(file, info):
            count, crc = count + len(chunk), zlib.crc32(chunk, crc)
            if count > limit:
                raise ManifestError(
                    f"the zip expands to more than {MAX_EXPANDED_BYTES} bytes, or than"
                    f" {MAX_RATIO} times its size, at {info.filename!r}"
                )
    except zlib.error as error:
        raise ManifestError(f"{info.filename!r} in the zip is damaged: {error}") from None
    if (count, crc) != (info.file_size, info.CRC):
        raise ManifestError(f"{info.filename!r} in the zip is damaged: size or CRC differ")
    return count


def _inflate(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if info.compress_type == zipfile.ZIP_STORED:
        yield from _chunks(file, info.compress_size, info.filename)
        return
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in _chunks(file, info.compress_size, info.filename):
        pending = chunk
        while pending and not inflate.eof:
            yield inflate.decompress(pending, CHUNK_BYTES)
            pending = inflate.unconsumed_tail
        if inflate.unused_data:
            raise ManifestError(f"{info.filename!r} in the zip has bytes after its end")
    while not inflate.eof:
        rest = inflate.decompress(b"", CHUNK_BYTES)
        if not rest:
            raise ManifestError(f"{info.filename!r} in the zip is cut off")
        yield rest


def _check_cpio(file: BinaryIO, size: int) -> Iterator[Entry]:
    """Rule 5."""
    file.seek(0)
    taken: dict[str, bool] = {}
    for number in range(MAX_ENTRIES + 1):
        name, length, expected = _read_cpio_header(file)
        if name == _TRAILER:
            if not number:
                raise ManifestError("the .swu holds nothing")
            return
        if (number == 0) != (name == "sw-description"):
            raise ManifestError(f"sw-description comes first in an .swu, and once; not {name!r}")
        if length > (MAX_DESCRIPTION_BYTES if number == 0 else size):
            raise ManifestError(f"{name!r} in the .swu is larger than it can be")
        check_name(name, taken)
        total = sum(sum(chunk) for chunk in _chunks(file, length, name)) & 0xFFFFFFFF
        if expected is not None and total != expected:
            raise ManifestError(f"{name!r} in the .swu is damaged: its checksum differs")
        file.read(-length % 4)
        yield Entry(name, length)
    raise ManifestError(f"more than {MAX_ENTRIES} entries in the .swu")


def _read_cpio_header(file: BinaryIO) -> tuple[str, int, int | None]:
    """Name, size, and checksum where the format has one."""
    header = file.read(_CPIO_HEADER_BYTES)
    if not _CPIO_HEADER.fullmatch(header):
        raise ManifestError("the .swu is cut off, or not a cpio archive (newc or crc)")
    fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
    length, name_bytes = fields[6], fields[11]
    name = file.read(min(name_bytes, 256)).removesuffix(b"\0").decode("ascii", "replace")
    if name_bytes > 256 or len(name) != name_bytes - 1:
        raise ManifestError("a name in the .swu is too long, or cut off")
    file.read(-(_CPIO_HEADER_BYTES + name_bytes) % 4)
    return name, length, fields[12] if header[:6] == _CPIO_CRC else None


def _chunks(file: BinaryIO, size: int, name: str) -> Iterator[bytes]:
    left = size
    while left > 0:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise ManifestError(f"{name!r} in the bundle is cut off")
        left -= len(chunk)
        yield chunk
