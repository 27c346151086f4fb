"""What a device accepts: the rules of firmware/device/ota.py, each with what breaks it.

Attacks bear the names of The Update Framework 1.0.34 where it has one.
"""

import ast
import hashlib
import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.device import ota
from zenthos_core.manifest import (
    MAX_COUNTER_STEP,
    MAX_MANIFEST_BYTES,
    Manifest,
    SignedManifest,
    sign_manifest,
    verify_manifest,
)
from zenthos_core.signing import (
    TrustedKeys,
    key_id,
    parse_trusted_keys,
    public_half,
    sign,
    verifies,
)

NOW = 1_795_000_000
BINARY = b"weights" * 99
ROOT, MODEL, FIRMWARE, ONLINE, STRANGER = (bytes([n]) * 32 for n in range(1, 6))
DEVICE = {
    "device_model": "esp32-s3",
    "chip": "esp32s3",
    "kinds": ["model"],
    "name": "irrigation",
    "newest_counter": 4,
    "space_bytes": 100_000,
    "firmware_version": "v1.2.3",
}


def release_key(private: bytes, kinds: list[str], **changes: Any) -> dict[str, Any]:
    public = public_half(private)
    return {
        "key_id": key_id(public),
        "public_key": b64encode(public).decode(),
        "kinds": kinds,
        "device_models": ["*"],
        "expires": NOW + 1000,
        **changes,
    }


def keys(*extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 3,
        "keys": [
            release_key(FIRMWARE, ["firmware-bundle", "esp-image"]),
            release_key(MODEL, ["model"]),
            *extra,
        ],
    }


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "spec_version": 1,
        "kind": "model",
        "name": "irrigation",
        "version": "m-20261123-0a1b2c3",
        "device_models": ["esp32-s3", "esp32-cam"],
        "chip": "esp32s3",
        "release_counter": 5,
        "size": len(BINARY),
        "sha256": hashlib.sha256(BINARY).hexdigest(),
        "created": NOW - 10,
        "expires": NOW + 1000,
        "key_id": key_id(public_half(MODEL)),
        "input_shape": [1, 7],
        "output_classes": ["irrigate", "skip"],
        "quantization": {"input": [0.1, 0]},
        **changes,
    }


def offer(content: object, private: bytes = MODEL) -> tuple[bytes, bytes]:
    document = content if isinstance(content, bytes) else json.dumps(content).encode()
    return document, sign(private, document)


def accept(
    content: object,
    private: bytes = MODEL,
    *,
    trusted: dict[str, Any] | None = None,
    now: int = NOW,
    **device: Any,
) -> dict[str, Any]:
    document, signature = offer(content, private)
    return ota.verify_release(
        document, signature, trusted or keys(), {**DEVICE, **device}, verifies, now
    )


def refusal(*arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(ota.Refused) as caught:
        accept(*arguments, **options)
    return caught.value.stage, caught.value.reason


def test_good_release_is_accepted() -> None:
    assert accept(manifest()) == manifest()


# Rules 1 and 2: keys.json


def check_keys(content: object, private: bytes = ROOT, newest: int = 0) -> dict[str, Any]:
    document, signature = offer(content, private)
    return ota.verify_keys(document, signature, public_half(ROOT), verifies, newest)


def keys_refusal(*arguments: Any) -> str:
    with pytest.raises(ota.Refused) as caught:
        check_keys(*arguments)
    assert caught.value.stage == "keys"
    return str(caught.value.reason)


def test_rule_1_keys_signed_by_the_root_are_accepted() -> None:
    assert check_keys(keys()) == keys()


@pytest.mark.parametrize("private", [MODEL, FIRMWARE, ONLINE, STRANGER])
def test_rule_1_keys_signed_by_another_key(private: bytes) -> None:
    assert keys_refusal(keys(), private) == "not_signed_by_root"


def test_rule_1_endless_keys() -> None:
    assert keys_refusal({"version": 1, "keys": [], "x": "x" * 9000}) == "too_large"


def test_rule_2_rollback_of_keys() -> None:
    assert check_keys(keys(), ROOT, 3)["version"] == 3
    assert keys_refusal(keys(), ROOT, 4) == "version_below_newest"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 8000,
        {"version": "3", "keys": []},
        {"version": True, "keys": []},
        {"version": 3},
        {"version": 3, "keys": {}},
        {"version": 3, "keys": [5]},
        {"version": 3, "keys": [release_key(MODEL, ["model"], expires="soon")]},
        {"version": 3, "keys": [release_key(MODEL, ["model"], public_key="AAAA")]},
        {"version": 3, "keys": [release_key(MODEL, ["model"], public_key="A")]},
        {"version": 3, "keys": [release_key(MODEL, [5])]},  # type: ignore[list-item]
    ],
    ids=lambda content: str(content)[:50],
)
def test_rule_2_malformed_keys(content: object) -> None:
    assert keys_refusal(content) == "malformed"


# Rules 3 and 4: size and signature


def test_rule_3_endless_manifest() -> None:
    assert refusal(manifest(padding="x" * 5000)) == ("manifest", "too_large")


def test_rule_3_is_checked_before_the_signature() -> None:
    def must_not_be_called(*_: bytes) -> bool:
        raise AssertionError("the signature of an endless manifest was checked")

    with pytest.raises(ota.Refused, match="too_large"):
        ota.verify_release(b"x" * 4097, b"", keys(), DEVICE, must_not_be_called, NOW)


@pytest.mark.parametrize("private", [ROOT, ONLINE, STRANGER])
def test_rule_4_arbitrary_software_installation(private: bytes) -> None:
    assert refusal(manifest(), private) == ("manifest", "not_signed_by_trusted_key")


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_rule_4_any_byte_changed(position: int, flip: int) -> None:
    document, signature = offer(manifest())
    whole = bytearray(document + signature)
    whole[position % len(whole)] ^= flip
    changed, its_signature = bytes(whole[: len(document)]), bytes(whole[len(document) :])
    with pytest.raises(ota.Refused, match="not_signed_by_trusted_key"):
        ota.verify_release(changed, its_signature, keys(), DEVICE, verifies, NOW)


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), bytes(65)])
def test_rule_4_no_signature(signature: bytes) -> None:
    document, _ = offer(manifest())
    with pytest.raises(ota.Refused, match="not_signed_by_trusted_key"):
        ota.verify_release(document, signature, keys(), DEVICE, verifies, NOW)


def test_rule_4_key_that_has_expired() -> None:
    trusted = {"version": 3, "keys": [release_key(MODEL, ["model"], expires=NOW)]}
    assert refusal(manifest(), trusted=trusted)[1] == "not_signed_by_trusted_key"


def test_rule_4_key_compromise_is_ended_by_new_keys() -> None:
    trusted = {"version": 4, "keys": [release_key(STRANGER, ["model"])]}
    assert refusal(manifest(), trusted=trusted)[1] == "not_signed_by_trusted_key"


def test_rule_4_nothing_is_parsed_unsigned() -> None:
    assert refusal(b"[" * 4000, STRANGER)[1] == "not_signed_by_trusted_key"


# Rules 5 to 12: what the manifest says


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 4000])
def test_rule_5_signed_but_no_object(content: bytes) -> None:
    assert refusal(content) == ("manifest", "malformed")


@pytest.mark.parametrize("field", [name for name, _ in ota._FIELDS])
@pytest.mark.parametrize("value", [None, True, 1.5, {}])
def test_rule_5_field_of_another_type(field: str, value: object) -> None:
    assert refusal(manifest(**{field: value})) == ("manifest", "malformed")


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64, "../" + "0" * 61])
def test_rule_5_no_sha256(sha256: str) -> None:
    assert refusal(manifest(sha256=sha256)) == ("manifest", "malformed")


def test_rule_5_spec_version_of_the_future() -> None:
    assert refusal(manifest(spec_version=2))[1] == "unknown_spec_version"


def test_rule_5_key_id_of_another_key() -> None:
    assert refusal(manifest(key_id=key_id(public_half(FIRMWARE))))[1] == "other_key_id"


def test_rule_5_fields_may_be_added() -> None:
    assert accept(manifest(added_later={"x": 1}))["added_later"] == {"x": 1}


def test_rule_6_model_key_signs_no_firmware() -> None:
    firmware = manifest(kind="firmware-bundle", version="v2.0.0", name="sensor")
    device = {"kinds": ["firmware-bundle"], "name": "sensor"}
    assert refusal(firmware, **device)[1] == "key_may_not_sign_this"
    signed_right = {**firmware, "key_id": key_id(public_half(FIRMWARE))}
    assert accept(signed_right, FIRMWARE, **device)["kind"] == "firmware-bundle"


def test_rule_6_key_covers_every_model_named() -> None:
    trusted = {"version": 3, "keys": [release_key(MODEL, ["model"], device_models=["esp32-s3"])]}
    assert refusal(manifest(), trusted=trusted)[1] == "key_may_not_sign_this"
    assert accept(manifest(device_models=["esp32-s3"]), trusted=trusted)


@pytest.mark.parametrize("times", [{"expires": NOW}, {"created": NOW + 1000}])
def test_rule_7_indefinite_freeze(times: dict[str, int]) -> None:
    assert refusal(manifest(**times))[1] == "expired"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device_models": ["esp32-cam"]}, "wrong_device_model"),
        ({"device_models": []}, "wrong_device_model"),
        ({"device_models": ["*"]}, "wrong_device_model"),
        ({"chip": "esp32c3"}, "wrong_chip"),
        ({"name": "frost"}, "wrong_name"),
    ],
)
def test_rule_8_wrong_software_installation(changes: dict[str, Any], reason: str) -> None:
    assert refusal(manifest(**changes))[1] == reason


def test_rule_8_kind_that_the_device_does_not_take_now() -> None:
    assert refusal(manifest(), kinds=["esp-image"])[1] == "wrong_kind"


def test_rule_8_any_chip_is_for_models_alone() -> None:
    assert accept(manifest(chip="*"))
    firmware = manifest(
        kind="esp-image", chip="*", version="v2.0.0", key_id=key_id(public_half(FIRMWARE))
    )
    assert refusal(firmware, FIRMWARE, kinds=["esp-image"])[1] == "wrong_chip"


@pytest.mark.parametrize(
    "version", ["", "m", "../etc", "m/../x", "m..x", "m\\x", "M-1", "m x", "m" * 65, "m\u0000"]
)
def test_rule_9_version_that_is_no_file_name(version: str) -> None:
    assert refusal(manifest(version=version)) == ("manifest", "malformed")


@pytest.mark.parametrize(
    ("wanted", "installed", "accepted"),
    [
        ("v1.2.3", "v1.2.3", True),
        ("v1.2.0", "v1.10.0", True),
        ("v1.10.0", "v1.9.9", False),
        ("v2.0.0", "v1.99.99", False),
        ("v0.0.1", None, False),
        (None, None, True),
    ],
)
def test_rule_10_mix_and_match(wanted: str | None, installed: str | None, accepted: bool) -> None:
    content = manifest(requires={"min_firmware": wanted})
    if accepted:
        assert accept(content, firmware_version=installed)
    else:
        assert refusal(content, firmware_version=installed)[1] == "needs_newer_firmware"


@pytest.mark.parametrize("wanted", ["1.2.3", "v1.2", "v1.2.x", "", 5, []])
def test_rule_10_malformed_requirement(wanted: object) -> None:
    assert refusal(manifest(requires={"min_firmware": wanted}))[1] == "malformed"
    assert refusal(manifest(requires=wanted))[1] == "malformed"


@pytest.mark.parametrize("counter", [4, 3, 0, -1])
def test_rule_11_rollback(counter: int) -> None:
    assert refusal(manifest(release_counter=counter))[1] == "counter_not_newer"


def test_rule_11_fast_forward() -> None:
    assert accept(manifest(release_counter=1004))
    assert refusal(manifest(release_counter=1005))[1] == "counter_too_far_ahead"


@pytest.mark.parametrize("size", [0, -1, 100_001])
def test_rule_12_size(size: int) -> None:
    assert refusal(manifest(size=size))[1] == "no_space"


# Rule 13: the download


def download(data: bytes, chunk: int = 7) -> None:
    whole = ota.Download(manifest())
    for start in range(0, len(data), chunk):
        whole.update(data[start : start + chunk])
    whole.finish()


def download_refusal(data: bytes) -> str:
    with pytest.raises(ota.Refused) as caught:
        download(data)
    assert caught.value.stage == "download"
    return str(caught.value.reason)


@given(st.integers(1, len(BINARY) + 9))
def test_rule_13_good_download_in_chunks_of_any_size(chunk: int) -> None:
    download(BINARY, chunk)


def test_rule_13_endless_data_is_stopped_at_the_first_byte_too_many() -> None:
    whole = ota.Download(manifest())
    whole.update(BINARY)
    with pytest.raises(ota.Refused, match="too_long"):
        whole.update(b"x")


def test_rule_13_partial_installation() -> None:
    assert download_refusal(BINARY[:-1]) == "too_short"
    assert download_refusal(b"") == "too_short"


@given(st.integers(0, len(BINARY) - 1), st.integers(1, 255))
def test_rule_13_any_byte_changed(position: int, flip: int) -> None:
    data = bytearray(BINARY)
    data[position] ^= flip
    assert download_refusal(bytes(data)) == "wrong_sha256"


# Rules 14 to 17: the answer to a check-in

QUESTION = {
    "device_id": "field-1",
    "device_model": "esp32-s3",
    "nonce": "nonce-0123456789",
    "asked": "/models/esp32-s3/irrigation/latest",
}
OFFERED = b'{"a": "manifest"}'


def online_keys(**changes: Any) -> dict[str, Any]:
    return keys({**release_key(ONLINE, ["check-in"]), **changes})


def check_in(**changes: Any) -> dict[str, Any]:
    return {
        "device_id": "field-1",
        "nonce": "nonce-0123456789",
        "asked": "/models/esp32-s3/irrigation/latest",
        "manifest_sha256": hashlib.sha256(OFFERED).hexdigest(),
        "issued_at": NOW,
        **changes,
    }


def believe(
    content: object,
    private: bytes = ONLINE,
    *,
    trusted: dict[str, Any] | None = None,
    came: bytes = OFFERED,
) -> dict[str, Any]:
    document, signature = offer(content, private)
    return ota.verify_check_in(
        document, signature, trusted or online_keys(), QUESTION, came, verifies, NOW
    )


def disbelief(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ota.Refused) as caught:
        believe(*arguments, **options)
    assert caught.value.stage == "check-in"
    return str(caught.value.reason)


def test_good_answer_is_believed() -> None:
    assert believe(check_in()) == check_in()
    assert believe(check_in(manifest_sha256=""), came=b"")
    assert believe(check_in(issued_at=1))  # the nonce tells, not the clock


@pytest.mark.parametrize("private", [ROOT, MODEL, FIRMWARE, STRANGER])
def test_rule_14_another_key(private: bytes) -> None:
    assert disbelief(check_in(), private) == "not_signed_by_online_key"


@pytest.mark.parametrize(
    "changes", [{"expires": NOW}, {"kinds": ["model"]}, {"device_models": ["esp32-cam"]}]
)
def test_rule_14_key_that_does_not_hold(changes: dict[str, Any]) -> None:
    assert disbelief(check_in(), trusted=online_keys(**changes)) == "not_signed_by_online_key"


def test_rule_14_endless_answer() -> None:
    assert disbelief(check_in(more="x" * 2000)) == "too_large"


@pytest.mark.parametrize("field", ["device_id", "nonce", "asked", "manifest_sha256", "issued_at"])
def test_rule_15_fields(field: str) -> None:
    assert disbelief(check_in(**{field: None})) == "malformed"
    assert disbelief(b"[]") == "malformed"


@pytest.mark.parametrize("field", ["device_id", "nonce", "asked"])
def test_rule_16_another_question(field: str) -> None:
    assert disbelief(check_in(**{field: "other"})) == "other_" + field


@pytest.mark.parametrize(
    ("signed", "came"),
    [
        (hashlib.sha256(b"older").hexdigest(), OFFERED),
        ("", OFFERED),
        (hashlib.sha256(OFFERED).hexdigest(), b""),
    ],
)
def test_rule_17_another_manifest(signed: str, came: bytes) -> None:
    assert disbelief(check_in(manifest_sha256=signed), came=came) == "other_manifest"


def test_the_online_key_installs_nothing() -> None:
    with pytest.raises(ota.Refused, match="key_may_not_sign_this"):
        accept(manifest(key_id=key_id(public_half(ONLINE))), ONLINE, trusted=online_keys())


# The device and the host agree, and the device's code stays within MicroPython


def test_device_accepts_what_the_host_signs() -> None:
    signed = sign_manifest(Manifest(**manifest()), MODEL)
    document, signature = offer(keys(), ROOT)
    trusted = ota.verify_keys(document, signature, public_half(ROOT), verifies)
    accepted = ota.verify_release(signed.manifest, signed.signature, trusted, DEVICE, verifies, NOW)
    assert accepted["version"] == manifest()["version"]
    host_keys = parse_trusted_keys(document, signature, public_half(ROOT))
    assert verify_manifest(signed, host_keys, now=NOW).version == accepted["version"]
    assert (MAX_COUNTER_STEP, MAX_MANIFEST_BYTES) == (
        ota.MAX_COUNTER_STEP,
        ota.MAX_MANIFEST_BYTES,
    )


def test_host_refuses_what_the_device_refuses() -> None:
    trusted = TrustedKeys(3, [])
    signed = SignedManifest(*offer(manifest(), STRANGER))
    with pytest.raises(Exception, match="no key in keys"):
        verify_manifest(signed, trusted, now=NOW)


VECTORS = Path(__file__).with_name("vectors") / "release.json"


def test_golden_vectors_are_those_this_code_makes(request: pytest.FixtureRequest) -> None:
    """CPython and MicroPython read these same bytes; deterministic signatures (RFC 8032)."""
    trusted, trusted_signature = offer(keys(), ROOT)
    document, signature = offer(manifest())
    made = {
        "now": NOW,
        "device": DEVICE,
        "root_public_key": public_half(ROOT).hex(),
        "keys": trusted.decode(),
        "keys_signature": trusted_signature.hex(),
        "manifest": document.decode(),
        "manifest_signature": signature.hex(),
        "binary": BINARY.hex(),
    }
    assert json.loads(VECTORS.read_text()) == made


def test_golden_vectors_are_accepted() -> None:
    vectors = json.loads(VECTORS.read_text())
    trusted = ota.verify_keys(
        vectors["keys"].encode(),
        bytes.fromhex(vectors["keys_signature"]),
        bytes.fromhex(vectors["root_public_key"]),
        verifies,
    )
    accepted = ota.verify_release(
        vectors["manifest"].encode(),
        bytes.fromhex(vectors["manifest_signature"]),
        trusted,
        vectors["device"],
        verifies,
        vectors["now"],
    )
    whole = ota.Download(accepted)
    whole.update(bytes.fromhex(vectors["binary"]))
    whole.finish()


def test_device_code_stays_within_micropython() -> None:
    tree = ast.parse(Path(ota.__file__).read_text())
    runtime = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    nodes = [node for top in runtime for node in ast.walk(top)]
    imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    assert imported <= {"binascii", "hashlib", "json"}
    beyond = (ast.ImportFrom, ast.Match, ast.JoinedStr, ast.TryStar, ast.AsyncFor, ast.Lambda)
    assert not [ast.unparse(node) for node in nodes if isinstance(node, beyond)]
    methods = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    assert not methods & {"hexdigest", "removeprefix", "removesuffix", "fullmatch"}
    assert "typing" not in {name.partition(".")[0] for name in vars(sys.modules[ota.__name__])}
