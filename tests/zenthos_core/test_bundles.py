"""Firmware bundles, by the rules of zenthos_core/bundles.py."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest

from tests.ota_api.releases import bundle
from zenthos_core import bundles
from zenthos_core.bundles import Format, check_bundle
from zenthos_core.errors import ManifestError


def make_zip(*entries: tuple[str | zipfile.ZipInfo, bytes], comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
        archive.comment = comment
    return file.getvalue()


def make_swu(*entries: tuple[str, bytes], trailer: bool = True, error: int = 0) -> bytes:
    archive = b""
    ends = [("TRAILER!!!", b"")] if trailer else []
    for name, data in [*entries, *ends]:
        fields = [0, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data) + error]
        archive += b"070702" + "".join(f"{n:08x}" for n in fields).encode() + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return archive


def refuses(content: bytes, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        check_bundle(io.BytesIO(content))


def test_rule_1_what_the_first_bytes_say() -> None:
    swu = make_swu(("sw-description", b"software = {}"), ("root.ext4", b"data" * 9))
    assert check_bundle(io.BytesIO(bundle())).format is Format.ZIP
    assert [e.name for e in check_bundle(io.BytesIO(swu)).entries] == [
        "sw-description",
        "root.ext4",
    ]
    assert check_bundle(io.BytesIO(b"hsqs" + bytes(92))).format is Format.RAUC
    for content in (b"", b"PK", b"#!/bin/sh", b"\x7fELF", b"BZh9", bytes(100)):
        refuses(content, "a firmware-bundle is a zip")


@pytest.mark.parametrize(
    "name",
    [
        "../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\b", "C:/x", "a/.", "..",
        "x" * 201, "\u00e4", "a\nb", "con\x01", "a/ /b",
    ],
)  # fmt: skip
def test_rule_2_names(name: str) -> None:
    refuses(make_zip((name, b"x")), "safe")
    if name.isascii():
        refuses(make_swu(("sw-description", b"d"), (name, b"x")), "safe|too long")


def test_rule_2_names_twice() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = make_zip(("a", b"1"), ("a", b"2"))
    refuses(twice, "twice")
    refuses(make_zip(("main.mpy", b"1"), ("MAIN.mpy", b"2")), "twice")
    refuses(make_zip(("a", b"1"), ("a/b", b"2")), "below a file")
    refuses(make_zip(("a/b", b"1"), ("a", b"2")), "twice")


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def with_flag(flag: int) -> bytes:
    content = make_zip(("a", b"x"))
    at = content.index(b"PK\x01\x02") + 8
    return content[:at] + struct.pack("<H", flag) + content[at + 2 :]


def lzma_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: make_zip((link(), b"/etc/passwd")), "link"),
        (lambda: with_flag(1), "encrypted"),
        (lzma_zip, "neither stored nor deflated"),
        (lambda: make_zip(("a", b"x"), comment=b"hello"), "cut off|comment"),
        (lambda: bundle() + b"more", "cut off"),
        (lambda: bundle()[:-1], "cut off"),
        (lambda: bundle()[:40], "cut off"),
        (lambda: bundle()[:30] + b"inserted" + bundle()[30:], "where it says"),
        (make_zip, "first bytes"),
    ],
)
def test_rule_3_a_plain_zip(content: Callable[[], bytes], words: str) -> None:
    refuses(content(), words)


def test_rule_4_bombs() -> None:
    refuses(make_zip(("zeros", bytes(8 * 1024 * 1024))), "100 times its size")
    refuses(make_zip(*((f"f{n}", b"") for n in range(bundles.MAX_ENTRIES + 1))), "entries")


def test_rule_4_sizes_that_lie() -> None:
    content = make_zip(("zeros", bytes(300_000)))
    directory = content.index(b"PK\x01\x02")
    small = struct.pack("<I", 10)
    lying = content[:22] + small + content[26:]
    at = directory + 24
    refuses(lying[:at] + small + lying[at + 4 :], "damaged")


def test_rule_4_damage() -> None:
    content = bytearray(bundle())
    content[60] ^= 0xFF
    refuses(bytes(content), "damaged|cut off|after its end")
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        archive.writestr("a", b"content")
    refuses(stored.getvalue().replace(b"content", b"c0ntent"), "CRC")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (make_swu(("image", b"x"), ("sw-description", b"d")), "comes first"),
        (make_swu(("sw-description", b"d"), trailer=False), "cut off"),
        (make_swu(("sw-description", b"d"), ("image", b"x" * 99))[:-260], "cut off"),
        (make_swu(("sw-description", b"d"), error=1), "checksum"),
        (make_swu(), "holds nothing"),
        (b"070701" + b"-" * 104, "not a cpio"),
        (make_swu(("sw-description", b"d")).replace(b"00000001", b"ffffffff", 2), "larger"),
    ],
)
def test_rule_5_swu(content: bytes, words: str) -> None:
    refuses(content, f"{words}|cut off")
