"""Manifests on the host, by the rules of zenthos_core/manifest.py."""

import hashlib
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from zenthos_core.errors import ManifestError
from zenthos_core.manifest import (
    Manifest,
    SignedManifest,
    sign_manifest,
    verify_binary,
    verify_counter,
    verify_manifest,
)
from zenthos_core.signing import ReleaseKey, TrustedKeys, key_id, public_half, sign

NOW = 1_795_000_000
KEY, OTHER = b"k" * 32, b"o" * 32
BINARY = b"weights"


def trusted(private: bytes = KEY, **changes: Any) -> TrustedKeys:
    public = public_half(private)
    key = {
        "key_id": key_id(public),
        "public_key": b64encode(public).decode(),
        "kinds": ["model"],
        "device_models": ["esp32-s3"],
        "expires": NOW + 100,
    }
    return TrustedKeys(1, [ReleaseKey(**{**key, **changes})])


def manifest(**changes: Any) -> Manifest:
    fields = {
        "spec_version": 1,
        "kind": "model",
        "name": "irrigation",
        "version": "m-20261123-0a1b2c3",
        "device_models": ["esp32-s3"],
        "chip": "esp32s3",
        "release_counter": 1,
        "size": len(BINARY),
        "sha256": hashlib.sha256(BINARY).hexdigest(),
        "created": NOW - 1,
        "expires": NOW + 50,
        "key_id": key_id(public_half(KEY)),
        "input_shape": [1, 7],
        "output_classes": ["irrigate", "skip"],
        "quantization": {"scale": 0.5},
    }
    return Manifest(**{**fields, **changes})


def refuse(words: str, signed: SignedManifest, keys: TrustedKeys | None = None) -> None:
    with pytest.raises(ManifestError, match=words):
        verify_manifest(signed, keys or trusted(), now=NOW)


def test_what_was_signed_verifies() -> None:
    signed = sign_manifest(manifest(), KEY)
    assert verify_manifest(signed, trusted(), now=NOW) == manifest()


def test_signing_is_deterministic() -> None:
    assert sign_manifest(manifest(), KEY) == sign_manifest(manifest(), KEY)


def test_rule_1_size() -> None:
    with pytest.raises(ManifestError, match="at most 4096"):
        sign_manifest(manifest(quantization={"x": "y" * 5000}), KEY)
    document = msgspec.json.encode(manifest(quantization={"x": "y" * 5000}))
    refuse("at most 4096", SignedManifest(document, sign(KEY, document)))


def test_rule_2_key_and_bytes() -> None:
    signed = sign_manifest(manifest(), KEY)
    refuse("no key", signed, trusted(OTHER))
    refuse("no key", SignedManifest(signed.manifest + b" ", signed.signature))
    refuse("no key", SignedManifest(signed.manifest, bytes(64)))
    refuse("no key", SignedManifest(signed.manifest, b""))


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b"{", b"\xff"])
def test_rule_3_parses(document: bytes) -> None:
    refuse("manifest", SignedManifest(document, sign(KEY, document)))


def test_rule_3_spec_version_and_key_id() -> None:
    refuse("spec_version", sign_manifest(manifest(spec_version=2), KEY))
    with pytest.raises(ManifestError, match="key_id"):
        sign_manifest(manifest(key_id="0" * 16), KEY)
    document = msgspec.json.encode(manifest(key_id="0" * 16))
    refuse("names key", SignedManifest(document, sign(KEY, document)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expires": NOW}, "has expired"),
        ({"kinds": ["esp-image"]}, "may not sign"),
        ({"device_models": ["esp32-cam"]}, "may not sign"),
        ({"device_models": []}, "may not sign"),
    ],
)
def test_rule_4_authority(changes: dict[str, Any], words: str) -> None:
    refuse(words, sign_manifest(manifest(), KEY), trusted(**changes))


def test_rule_4_star_is_every_model() -> None:
    signed = sign_manifest(manifest(device_models=["esp32-s3", "esp32-cam"]), KEY)
    assert verify_manifest(signed, trusted(device_models=["*"]), now=NOW)


@pytest.mark.parametrize("times", [{"expires": NOW}, {"created": NOW + 50}])
def test_rule_5_time(times: dict[str, int]) -> None:
    refuse("expired", sign_manifest(manifest(**times), KEY))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v1.0.0"},
        {"version": "m-20261123-0a1b2c3\n"},
        {"version": "m-20261123-0A1B2C3"},
        {"version": "m-2026112\u0663-0a1b2c3"},
        {"version": "../m-20261123-0a1b2c3"},
        {"name": "../x"},
        {"name": "a/b"},
        {"name": ""},
        {"input_shape": None},
        {"output_classes": []},
        {"quantization": None},
    ],
    ids=str,
)
def test_rule_6_wording(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        verify_manifest(sign_manifest(manifest(**changes), KEY), trusted(), now=NOW)


@pytest.mark.parametrize("version", ["v0.0.0", "v1.20.300", "v99999.0.1"])
def test_rule_6_firmware_versions(version: str) -> None:
    release = manifest(kind="esp-image", version=version)
    signed = sign_manifest(release, KEY)
    assert verify_manifest(signed, trusted(kinds=["esp-image"]), now=NOW).version == version


@pytest.mark.parametrize("version", ["1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "v100000.0.0"])
def test_rule_6_no_firmware_versions(version: str) -> None:
    signed = sign_manifest(manifest(kind="esp-image", version=version), KEY)
    refuse("not a esp-image version", signed, trusted(kinds=["esp-image"]))


def test_rule_7_binary() -> None:
    verify_binary(manifest(), BINARY)
    for binary in (BINARY + b"x", BINARY[:-1], b"weightz", b""):
        with pytest.raises(ManifestError):
            verify_binary(manifest(), binary)


@pytest.mark.parametrize(
    ("counter", "newest"), [(1, [0]), (1000, [0]), (6, [5]), (1005, [5]), (901, [500, 900])]
)
def test_rule_8_next_counters(counter: int, newest: list[int]) -> None:
    verify_counter(manifest(release_counter=counter), newest)


@pytest.mark.parametrize(
    ("counter", "newest", "range_"),
    [
        (0, [0], "1 to 1000"),
        (5, [5], "6 to 1005"),
        (4, [5], "6 to 1005"),
        (1006, [5], "6 to 1005"),
        (-1, [0], "1 to 1000"),
        (1600, [500, 900], "901 to 1500"),
        (800, [500, 900], "901 to 1500"),
    ],
)
def test_rule_8_counters_out_of_bounds(counter: int, newest: list[int], range_: str) -> None:
    with pytest.raises(ManifestError, match=f"release_counter {counter} must be {range_}"):
        verify_counter(manifest(release_counter=counter), newest)
