"""Ed25519 keys: an offline root signs `keys.json`, which names what each release key may sign.

Keys are 32 raw bytes, base64 in files and JSON. `key_id` is the first 16 hex digits of the SHA-256
of the public key.
"""

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from zenthos_core.errors import ConfigurationError, ManifestError

CHECK_IN: Final = "check-in"
"""The kind of what the online key signs: answers to devices, no releases."""


class ReleaseKey(msgspec.Struct, frozen=True):
    """A key that may sign releases of some kinds for some device models (`*` for all)."""

    key_id: str
    public_key: str
    kinds: list[str]
    device_models: list[str]
    expires: int

    def may_sign(self, kind: str, device_models: list[str]) -> bool:
        """Whether a release of that kind for those models is this key's to sign."""
        models_allowed = "*" in self.device_models or set(device_models) <= set(self.device_models)
        return kind in self.kinds and models_allowed


def is_trusted(
    keys: Sequence[ReleaseKey], key_id: str, kind: str, device_models: list[str], *, now: float
) -> bool:
    """Whether a key of that id may sign such a release at `now` (epoch seconds)."""
    return any(
        key.key_id == key_id and key.expires > now and key.may_sign(kind, device_models)
        for key in keys
    )


class TrustedKeys(msgspec.Struct, frozen=True):
    """The content of `keys.json`."""

    version: int
    keys: list[ReleaseKey]

    def find(self, key_id: str) -> ReleaseKey:
        """The key of that id; ManifestError where the root has not signed for one."""
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise ManifestError(f"key {key_id} is not in keys.json: have the root key sign for it")


def key_id(public_key: bytes) -> str:
    """The name of a key."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def sign(private_key: bytes, message: bytes) -> bytes:
    """Detached Ed25519 signature, 64 bytes (RFC 8032)."""
    return SigningKey(private_key).sign(message).signature


def verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` is by that key."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def public_half(private_key: bytes) -> bytes:
    """The public key of a private one."""
    return bytes(SigningKey(private_key).verify_key)


def generate_key() -> bytes:
    """A new private key, 32 bytes from the operating system."""
    return bytes(SigningKey.generate())


def write_private_key(path: Path, private_key: bytes) -> None:
    """Write a new key file that only its owner can read; FileExistsError where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b64encode(private_key) + b"\n")


def read_key(path: Path) -> bytes:
    """Read a private or public key file.

    Raises:
        ConfigurationError: where there is no such file or it holds no key.
    """
    try:
        key = b64decode(path.read_bytes().strip(), validate=True)
    except FileNotFoundError:
        raise ConfigurationError(
            f"no key at {path}: `zenthos up` makes the development keys"
        ) from None
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigurationError(f"{path} does not hold 32 bytes in base64")
    return key


def parse_trusted_keys(document: bytes, signature: bytes, root_public_key: bytes) -> TrustedKeys:
    """Accept `keys.json` if the root key signed exactly these bytes, else ManifestError."""
    if not verifies(root_public_key, document, signature):
        raise ManifestError("keys.json is not signed by the root key")
    try:
        return msgspec.json.decode(document, type=TrustedKeys)
    except msgspec.DecodeError as error:
        raise ManifestError(f"keys.json: {error}") from None


def read_trusted_keys(path: Path, root_public_key: bytes) -> TrustedKeys:
    """Read `keys.json` and the root's signature beside it, `keys.json.sig` (base64)."""
    try:
        document = path.read_bytes()
        signature = b64decode(path.with_name(path.name + ".sig").read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"no trusted keys: {error.filename} is missing") from None
    return parse_trusted_keys(document, signature, root_public_key)


def write_trusted_keys(path: Path, keys: TrustedKeys, root_private_key: bytes) -> None:
    """Sign and write `keys.json` and `keys.json.sig`."""
    document = msgspec.json.format(msgspec.json.encode(keys))
    path.write_bytes(document)
    signature = b64encode(sign(root_private_key, document))
    path.with_name(path.name + ".sig").write_bytes(signature + b"\n")
