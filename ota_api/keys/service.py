"""The trusted release keys, read again whenever their files change, and the online key."""

from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from zenthos_core.errors import ConfigurationError, ManifestError
from zenthos_core.signing import TrustedKeys, parse_trusted_keys, read_key


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
    """`keys.json` and `keys.json.sig`, verified by the root key."""

    def __init__(self, path: Path, root_public_key_file: Path) -> None:
        self._path = path
        self._files = (path, path.with_name(path.name + ".sig"), root_public_key_file)
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._loaded: SignedKeys | None = None

    def load(self) -> SignedKeys:
        """The keys that hold now.

        Raises:
            ConfigurationError: where files are missing or the root has not signed them.
        """
        seen = tuple(map(_fingerprint, self._files))
        if self._loaded is None or seen != self._seen:
            self._loaded = self._read()
            self._seen = seen
        return self._loaded

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


def _fingerprint(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} is missing: `zenthos up` makes the development keys"
        ) from None
    return status.st_mtime_ns, status.st_size, status.st_ino
