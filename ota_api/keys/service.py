"""The trusted release keys, read again whenever their files change, and the online key."""

import hashlib
import logging
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from zenthos_core.errors import ConfigurationError, ManifestError
from zenthos_core.signing import TrustedKeys, parse_trusted_keys, read_key

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignedKeys:
    """keys.json: the exact signed bytes, the root's signature, and what they say."""

    document: bytes
    signature: bytes
    keys: TrustedKeys


@dataclass(frozen=True)
class OnlineKey:
    """Signs answers to devices; nothing that a device would install."""

    _key: SigningKey

    @classmethod
    def read(cls, path: Path) -> "OnlineKey":
        """From its file; ConfigurationError where there is none."""
        return cls(SigningKey(read_key(path)))

    def sign(self, message: bytes) -> bytes:
        """Detached Ed25519 signature."""
        return self._key.sign(message).signature


class TrustedKeyFile:
    """`keys.json` and `keys.json.sig`, verified by the root key.

    What is found to be bad is not taken up: the last good list holds, and `problem` says why.
    """

    def __init__(self, path: Path, root_public_key_file: Path) -> None:
        self._path = path
        self._files = (path, path.with_name(path.name + ".sig"), root_public_key_file)
        self._seen: tuple[tuple[int, int, int], ...] | None = None
        self._loaded: SignedKeys | None = None
        self._newest: tuple[int, bytes] | None = None
        self.problem: str | None = None
        """Why the files there are now do not hold."""

    def load(self) -> SignedKeys:
        """The keys that hold now.

        Raises:
            ConfigurationError: where there never were good ones.
        """
        try:
            seen = tuple(map(_fingerprint, self._files))
            if seen != self._seen:
                self._take_up(self._read())
                self._seen, self.problem = seen, None
        except (ConfigurationError, OSError) as error:
            self._report(str(error))
        if self._loaded is None:
            raise ConfigurationError(self.problem or f"{self._path} was not read")
        return self._loaded

    def learn(self, newest: tuple[int, bytes] | None) -> None:
        """The newest version that any server accepted, and its SHA-256; another ends here."""
        if newest is None or (self._newest and newest[0] < self._newest[0]):
            return
        self._newest = newest
        if self._loaded and newest != _version(self._loaded):
            self._loaded, self._seen = None, None

    def _take_up(self, keys: SignedKeys) -> None:
        if self._newest is not None:
            check_version(keys, self._newest)
        self._loaded = keys
        self._newest = _version(keys)

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            _logger.error("%s", problem)
        self.problem = problem

    def _read(self) -> SignedKeys:
        document_file, signature_file, root_file = self._files
        document = document_file.read_bytes()
        try:
            signature = b64decode(signature_file.read_bytes())
            keys = parse_trusted_keys(document, signature, read_key(root_file))
        except (ManifestError, ValueError) as error:
            raise ConfigurationError(
                f"{document_file} is not trusted ({error}): sign it with the root key"
            ) from None
        return SignedKeys(document, signature, keys)


def check_version(keys: SignedKeys, newest: tuple[int, bytes]) -> None:
    """Not below the newest accepted, and no other list of its version; else ConfigurationError."""
    version, _ = newest
    found, _ = _version(keys)
    if found < version:
        raise ConfigurationError(
            f"keys.json has version {found}, but {version} was accepted before: put the newest"
            " back, or have the root sign a higher version (`zenthos keys`)"
        )
    if found == version and _version(keys) != newest:
        raise ConfigurationError(
            f"keys.json of version {found} is not the one accepted before: have the root sign it"
            f" as version {found + 1} (`zenthos keys`)"
        )


def _version(keys: SignedKeys) -> tuple[int, bytes]:
    """With the SHA-256 of the list."""
    return keys.keys.version, hashlib.sha256(keys.document).digest()


def _fingerprint(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing: `zenthos up` makes the development keys"
        ) from None
    return status.st_mtime_ns, status.st_size, status.st_ino
