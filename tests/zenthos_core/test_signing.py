"""Ed25519 keys and the root-signed list of them."""

import stat
from base64 import b64encode
from pathlib import Path

import pytest

from zenthos_core.errors import ConfigurationError, ManifestError
from zenthos_core.signing import (
    ReleaseKey,
    TrustedKeys,
    generate_key,
    key_id,
    parse_trusted_keys,
    public_half,
    read_key,
    read_trusted_keys,
    sign,
    verifies,
    write_private_key,
    write_trusted_keys,
)

# RFC 8032, section 7.1, test 2
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)

ROOT = b"r" * 32
KEYS = TrustedKeys(2, [ReleaseKey(key_id(PUBLIC), b64encode(PUBLIC).decode(), ["model"], ["*"], 9)])


def test_vector_of_the_standard() -> None:
    assert public_half(SECRET) == PUBLIC
    assert sign(SECRET, b"\x72") == SIGNATURE
    assert verifies(PUBLIC, b"\x72", SIGNATURE)


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(64)])
def test_no_signature(signature: bytes) -> None:
    assert not verifies(PUBLIC, b"\x72", signature)


def test_malleated_signature_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(SIGNATURE[32:], "little") + order
    assert not verifies(PUBLIC, b"\x72", SIGNATURE[:32] + s.to_bytes(32, "little"))


def test_public_key_of_another_length() -> None:
    assert not verifies(b"short", b"\x72", SIGNATURE)


def test_keys_differ() -> None:
    assert generate_key() != generate_key()


def test_private_key_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "root.key"
    write_private_key(path, ROOT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(path) == ROOT
    with pytest.raises(FileExistsError):
        write_private_key(path, ROOT)


@pytest.mark.parametrize("content", [b"", b"AAAA", b"not base64!", b64encode(bytes(33))])
def test_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.key").write_bytes(content)
    with pytest.raises(ConfigurationError, match="does not hold 32 bytes"):
        read_key(tmp_path / "x.key")


def test_missing_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="zenthos up"):
        read_key(tmp_path / "x.key")


def test_trusted_keys_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_trusted_keys(path, KEYS, ROOT)
    assert read_trusted_keys(path, public_half(ROOT)) == KEYS
    assert KEYS.find(key_id(PUBLIC)).kinds == ["model"]
    with pytest.raises(ManifestError, match="have the root key sign"):
        KEYS.find("unknown")


def test_trusted_keys_of_another_root_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_trusted_keys(path, KEYS, ROOT)
    with pytest.raises(ManifestError, match="not signed by the root"):
        read_trusted_keys(path, PUBLIC)
    path.write_bytes(path.read_bytes().replace(b'"model"', b'"esp-image"'))
    with pytest.raises(ManifestError, match="not signed by the root"):
        read_trusted_keys(path, public_half(ROOT))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"version": "1", "keys": []}'])
def test_signed_nonsense(document: bytes) -> None:
    with pytest.raises(ManifestError, match=r"keys\.json"):
        parse_trusted_keys(document, sign(ROOT, document), public_half(ROOT))


@pytest.mark.parametrize("missing", ["keys.json", "keys.json.sig"])
def test_missing_files(tmp_path: Path, missing: str) -> None:
    write_trusted_keys(tmp_path / "keys.json", KEYS, ROOT)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing):
        read_trusted_keys(tmp_path / "keys.json", public_half(ROOT))
