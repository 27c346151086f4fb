"""What a device accepts over the air. Runs on CPython and MicroPython alike; does no I/O.

Rules, in the order they are checked. A broken one raises `Refused` and nothing after it is looked
at, so nothing is parsed before its signature has been verified:

keys.json, once per check-in, with the pinned root public key:
 1. At most 8 KiB, and the root key signed exactly these bytes.
 2. It parses, and its version is not below the newest one seen.

manifest:
 3. At most 4 KiB.
 4. A key of keys.json signed exactly these bytes; of those, only keys that have not expired and
    may sign for this device model are tried.
 5. It parses, its spec_version is 1, its fields have their types, its key_id is the signer's.
 6. That key may sign this kind for every device model named.
 7. It has not expired, and was made before it expires.
 8. It is meant for this device: model, chip (`*` in a model release: any), kind, name.
 9. Its version has only the characters of a version, so that it can name a file.
10. The firmware it requires is installed.
11. Its release_counter exceeds the newest one accepted, by at most 1000.
12. Its size fits the space there is.

download:
13. Never more bytes than signed; in the end exactly as many, with the signed SHA-256.

answer to a check-in, before its manifest is looked at, also where nothing is offered:
14. At most 1 KiB, and a key of keys.json that has not expired, is of the kind check-in and for
    this device model signed exactly these bytes. No key of another kind will do.
15. It parses, and its fields have their types.
16. It is for this device, answers what was asked, and repeats the nonce that was sent with it: an
    answer kept from another time is refused.
17. It names the SHA-256 of the manifest that came with it, or nothing where none came.
"""

import binascii
import hashlib
import json

TYPE_CHECKING = False  # MicroPython has no typing; type checkers take the name for true
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Verify = Callable[[bytes, bytes, bytes], bool]
    Fields = tuple[tuple[str, type], ...]

SPEC_VERSION = 1
MAX_KEYS_BYTES = 8192
MAX_MANIFEST_BYTES = 4096
MAX_CHECK_IN_BYTES = 1024
MAX_COUNTER_STEP = 1000
CHECK_IN = "check-in"
ANY = "*"

_FIELDS = (
    ("kind", str),
    ("name", str),
    ("version", str),
    ("device_models", list),
    ("chip", str),
    ("release_counter", int),
    ("size", int),
    ("sha256", str),
    ("created", int),
    ("expires", int),
    ("key_id", str),
)
_KEY_FIELDS = (
    ("key_id", str),
    ("public_key", str),
    ("kinds", list),
    ("device_models", list),
    ("expires", int),
)
_CHECK_IN_FIELDS = (
    ("device_id", str),
    ("nonce", str),
    ("asked", str),
    ("manifest_sha256", str),
    ("issued_at", int),
)
_VERSION_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-"
_HEX = "0123456789abcdef"


class Refused(Exception):  # noqa: N818 - the word a device reports
    """What was offered is not accepted; `stage` is keys, check-in, manifest or download."""

    def __init__(self, stage: str, reason: str, detail: str = "") -> None:
        Exception.__init__(self, stage + ": " + reason + (": " + detail if detail else ""))
        self.stage = stage
        self.reason = reason
        self.detail = detail


def verify_keys(
    document: bytes,
    signature: bytes,
    root_public_key: bytes,
    verify_ed25519: "Verify",
    newest_version: int = 0,
) -> "dict[str, Any]":
    """Rules 1 and 2. Returns the content of keys.json.

    `verify_ed25519(public_key, message, signature)` answers whether a signature holds.
    """
    if len(document) > MAX_KEYS_BYTES:
        raise Refused("keys", "too_large", str(len(document)) + " bytes")
    if not verify_ed25519(root_public_key, document, signature):
        raise Refused("keys", "not_signed_by_root")
    keys = _parse("keys", document)
    _check_fields("keys", keys, (("version", int), ("keys", list)))
    for key in keys["keys"]:
        _check_fields("keys", key, _KEY_FIELDS)
        if len(_decode_base64("keys", key["public_key"])) != 32:
            raise Refused("keys", "malformed", "public_key")
    if keys["version"] < newest_version:
        raise Refused("keys", "version_below_newest", str(keys["version"]))
    return keys


def verify_release(  # noqa: PLR0917 - the order is the contract with the caller on the device
    manifest_bytes: bytes,
    signature: bytes,
    keys: "dict[str, Any]",
    device: "dict[str, Any]",
    verify_ed25519: "Verify",
    now: int,
) -> "dict[str, Any]":
    """Rules 3 to 12. Returns the manifest; `now` in UTC epoch seconds.

    `device` holds device_model, chip, kinds (that it takes now), name, newest_counter, space_bytes
    and firmware_version (None where it runs none of ours).
    """
    if len(manifest_bytes) > MAX_MANIFEST_BYTES:
        raise Refused("manifest", "too_large", str(len(manifest_bytes)) + " bytes")
    trusted = [
        key
        for key in keys["keys"]
        if key["expires"] > now and _covers(key, [device["device_model"]])
    ]
    signer = _find_signer(manifest_bytes, signature, trusted, verify_ed25519)
    manifest = _parse("manifest", manifest_bytes)
    _check_form(manifest, signer)
    _check_authority(manifest, signer)
    _check_time(manifest, now)
    _check_target(manifest, device)
    _check_version(manifest["version"])
    _check_requirements(manifest, device)
    _check_counter(manifest["release_counter"], device["newest_counter"])
    if not 0 < manifest["size"] <= device["space_bytes"]:
        raise Refused("manifest", "no_space", str(manifest["size"]) + " bytes")
    return manifest


def verify_check_in(  # noqa: PLR0917 - as above
    document: bytes,
    signature: bytes,
    keys: "dict[str, Any]",
    question: "dict[str, Any]",
    manifest_bytes: bytes,
    verify_ed25519: "Verify",
    now: int,
) -> "dict[str, Any]":
    """Rules 14 to 17. Returns what was signed; `manifest_bytes` are empty where none came.

    `question` holds device_id, device_model, nonce and asked, the path of the request. `now` is
    for the expiry of keys alone: the nonce tells how fresh the answer is, whatever the clocks say.
    """
    if len(document) > MAX_CHECK_IN_BYTES:
        raise Refused("check-in", "too_large", str(len(document)) + " bytes")
    trusted = [
        key
        for key in keys["keys"]
        if key["expires"] > now
        and CHECK_IN in key["kinds"]
        and _covers(key, [question["device_model"]])
    ]
    if not any(
        verify_ed25519(_decode_base64("keys", key["public_key"]), document, signature)
        for key in trusted
    ):
        raise Refused("check-in", "not_signed_by_online_key")
    answer = _parse("check-in", document)
    _check_fields("check-in", answer, _CHECK_IN_FIELDS)
    for name in ("device_id", "asked", "nonce"):
        if answer[name] != question[name]:
            raise Refused("check-in", "other_" + name, answer[name])
    offered = ""
    if manifest_bytes:
        offered = binascii.hexlify(hashlib.sha256(manifest_bytes).digest()).decode()
    if answer["manifest_sha256"] != offered:
        raise Refused("check-in", "other_manifest", answer["manifest_sha256"])
    return answer


class Download:
    """Rule 13, as the bytes come; after an interruption, feed what was kept first."""

    def __init__(self, manifest: "dict[str, Any]") -> None:
        self.size = manifest["size"]
        self.received = 0
        self._sha256 = manifest["sha256"]
        self._hash = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        """Count and hash the next bytes; refuses the first byte too many."""
        self.received += len(chunk)
        if self.received > self.size:
            raise Refused("download", "too_long", "more than " + str(self.size) + " bytes")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Accept the whole, or refuse it."""
        if self.received != self.size:
            raise Refused("download", "too_short", str(self.received) + " bytes")
        if binascii.hexlify(self._hash.digest()).decode() != self._sha256:
            raise Refused("download", "wrong_sha256")


def _find_signer(
    message: bytes, signature: bytes, keys: "list[dict[str, Any]]", verify_ed25519: "Verify"
) -> "dict[str, Any]":
    """Rule 4."""
    for key in keys:
        if verify_ed25519(_decode_base64("keys", key["public_key"]), message, signature):
            return key
    raise Refused("manifest", "not_signed_by_trusted_key")


def _check_form(manifest: "dict[str, Any]", signer: "dict[str, Any]") -> None:
    """Rule 5."""
    _check_fields("manifest", manifest, (("spec_version", int),))
    if manifest["spec_version"] != SPEC_VERSION:
        raise Refused("manifest", "unknown_spec_version", str(manifest["spec_version"]))
    _check_fields("manifest", manifest, _FIELDS)
    if len(manifest["sha256"]) != 64 or not _made_of(manifest["sha256"], _HEX):
        raise Refused("manifest", "malformed", "sha256")
    if manifest["key_id"] != signer["key_id"]:
        raise Refused("manifest", "other_key_id", manifest["key_id"])


def _check_authority(manifest: "dict[str, Any]", signer: "dict[str, Any]") -> None:
    """Rule 6."""
    if manifest["kind"] not in signer["kinds"] or not _covers(signer, manifest["device_models"]):
        raise Refused("manifest", "key_may_not_sign_this", manifest["kind"])


def _check_time(manifest: "dict[str, Any]", now: int) -> None:
    """Rule 7."""
    if not manifest["created"] < manifest["expires"] or manifest["expires"] <= now:
        raise Refused("manifest", "expired")


def _check_target(manifest: "dict[str, Any]", device: "dict[str, Any]") -> None:
    """Rule 8."""
    if device["device_model"] not in manifest["device_models"]:
        raise Refused("manifest", "wrong_device_model", ", ".join(manifest["device_models"]))
    if manifest["kind"] not in device["kinds"]:
        raise Refused("manifest", "wrong_kind", manifest["kind"])
    any_chip = manifest["kind"] == "model" and manifest["chip"] == ANY
    if manifest["chip"] != device["chip"] and not any_chip:
        raise Refused("manifest", "wrong_chip", manifest["chip"])
    if manifest["name"] != device["name"]:
        raise Refused("manifest", "wrong_name", manifest["name"])


def _check_version(version: str) -> None:
    """Rule 9."""
    if (
        not 2 <= len(version) <= 64
        or version[0] not in "vm"
        or not _made_of(version, _VERSION_CHARACTERS)
        or ".." in version
    ):
        raise Refused("manifest", "malformed", "version")


def _check_requirements(manifest: "dict[str, Any]", device: "dict[str, Any]") -> None:
    """Rule 10."""
    requires = manifest.get("requires", {})
    if not isinstance(requires, dict):
        raise Refused("manifest", "malformed", "requires")
    wanted = requires.get("min_firmware")
    if wanted is None:
        return
    installed = device["firmware_version"]
    if installed is None or _version_numbers(installed) < _version_numbers(wanted):
        raise Refused("manifest", "needs_newer_firmware", str(wanted))


def _check_counter(counter: int, newest: int) -> None:
    """Rule 11."""
    if counter <= newest:
        raise Refused("manifest", "counter_not_newer", str(counter))
    if counter > newest + MAX_COUNTER_STEP:
        raise Refused("manifest", "counter_too_far_ahead", str(counter))


def _parse(stage: str, document: bytes) -> "dict[str, Any]":
    try:
        # RuntimeError: nested deeper than the interpreter's stack
        content = json.loads(document.decode())
    except (ValueError, RuntimeError):
        raise Refused(stage, "malformed", "not JSON") from None
    if not isinstance(content, dict):
        raise Refused(stage, "malformed", "not an object")
    return content


def _decode_base64(stage: str, text: str) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except ValueError:
        raise Refused(stage, "malformed", "not base64") from None


def _check_fields(stage: str, content: object, fields: "Fields") -> None:
    if not isinstance(content, dict):
        raise Refused(stage, "malformed", "not an object")
    for name, kind in fields:
        value = content.get(name)
        # bool is an int to isinstance, and no number here
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Refused(stage, "malformed", name)
        if (
            isinstance(value, list)
            and name != "keys"
            and not all(isinstance(v, str) for v in value)
        ):
            raise Refused(stage, "malformed", name)


def _covers(key: "dict[str, Any]", device_models: "list[str]") -> bool:
    return ANY in key["device_models"] or all(m in key["device_models"] for m in device_models)


def _made_of(text: str, characters: str) -> bool:
    return all(c in characters for c in text)


def _version_numbers(version: str) -> "list[int]":
    """vMAJOR.MINOR.PATCH as three numbers that compare."""
    try:
        numbers = [int(part) for part in version[1:].split(".")]
    except (AttributeError, TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or version[0] != "v":
        raise Refused("manifest", "malformed", "firmware version")
    return numbers
