"""ESP images, by the rules of zenthos_core/esp_image.py."""

import hashlib
from collections.abc import Callable

import pytest

from tests.ota_api.releases import esp_image
from zenthos_core.errors import ManifestError
from zenthos_core.esp_image import MAX_IMAGE_BYTES, check_image, chip_ids

IMAGE = esp_image("v1.2.3")


def check(image: bytes, chip: str = "esp32s3", version: str = "v1.2.3") -> None:
    check_image(image, chip=chip, version=version)


def with_byte(at: int, value: int, *, digest: bool = True) -> bytes:
    """One byte changed, and the digest made anew."""
    body = IMAGE[:at] + bytes([value]) + IMAGE[at + 1 : -32]
    return body + (hashlib.sha256(body).digest() if digest else IMAGE[-32:])


def test_a_good_image() -> None:
    found = check_image(IMAGE, chip="esp32s3", version="v1.2.3")
    assert (found.version, found.project, found.idf_version) == ("v1.2.3", "sensor", "v5.3")
    assert (found.chip_id, found.segments) == (9, 2)


def test_rule_1_size_and_chip() -> None:
    with pytest.raises(ManifestError, match="of flash"):
        check(bytes(MAX_IMAGE_BYTES + 1))
    for chip in ("esp8266", "rp2040", "*", ""):
        with pytest.raises(ManifestError, match="no esp-image"):
            check(IMAGE, chip)


@pytest.mark.parametrize("length", [0, 1, 8, 23, 24, 30, 100, len(IMAGE) - 33])
def test_rule_2_cut_off(length: int) -> None:
    with pytest.raises(ManifestError, match=r"not an ESP image|cut off|SHA-256"):
        check(IMAGE[:length])


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0xEA), (1, 0), (1, 17), (1, 16), (23, 7), (29, 0xFF), (31, 0x7F)]
)
def test_rule_2_nonsense(at: int, value: int) -> None:
    with pytest.raises(ManifestError):
        check(with_byte(at, value))


def test_rule_3_wrong_chip() -> None:
    ids = chip_ids()
    wanted = {"esp32": 0, "esp32s2": 2, "esp32c3": 5, "esp32s3": 9, "esp32c6": 13}
    assert {chip: ids[chip] for chip in wanted} == wanted
    for chip, number in wanted.items():
        check(esp_image("v1.2.3", chip_id=number), chip)
        with pytest.raises(ManifestError, match="the image is for"):
            check(IMAGE if chip != "esp32s3" else esp_image("v1.2.3", chip_id=0), chip)


def test_rule_4_checksum() -> None:
    with pytest.raises(ManifestError, match="checksum"):
        check(with_byte(len(IMAGE) - 60, 0x11))


NO_DIGEST = IMAGE[:23] + b"\0" + IMAGE[24:-32]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (lambda: IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]), "not that of its bytes"),
        (lambda: IMAGE[:-16], "not that of its bytes"),
        (lambda: NO_DIGEST, "no SHA-256"),
        (lambda: IMAGE + b"x", "follow"),
        (lambda: IMAGE + bytes(-len(IMAGE) % 4096) + b"\xe7" + bytes(4095), "follow"),
    ],
)
def test_rule_5_digest(image: Callable[[], bytes], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        check(image())


def test_rule_5_a_signed_image() -> None:
    check(IMAGE + b"\xff" * (-len(IMAGE) % 4096) + b"\xe7\x02" + bytes(4094))


def test_rule_6_descriptor() -> None:
    with pytest.raises(ManifestError, match=r"says it is version 'v1\.2\.3'"):
        check(IMAGE, version="v1.2.4")
    with pytest.raises(ManifestError, match=r"checksum|no app descriptor"):
        check(with_byte(32, 0))
