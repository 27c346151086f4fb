"""ES256 tokens: who somebody is and what they may do, verified with the public key alone.

A device's token is also its password at the broker, with its id as user name.
"""

import hashlib
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

import jwt
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from zenthos_core.errors import AuthenticationError, ConfigurationError

ALGORITHM: Final = "ES256"
ISSUER: Final = "zenthos"
DEVICE_TOKEN_S: Final = 30 * 24 * 3600
CLOCK_LEAD_S: Final = 60
"""A token may be issued so far ahead: servers' clocks differ. As much as the broker allows."""


class Role(StrEnum):
    """Who a token speaks for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    DEVICE = "device"


class Identity(msgspec.Struct, frozen=True):
    """A verified token. `subject` is a device id, a user or a service."""

    subject: str
    role: Role
    scopes: frozenset[str] = frozenset()
    issued_at: int = 0
    """Epoch seconds."""
    session: str | None = None
    """Of a user who has logged in; services and devices have none."""


def generate_private_key() -> bytes:
    """A new P-256 key, PEM (PKCS #8)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem(private_pem: bytes) -> bytes:
    """The public half of a private key, PEM."""
    key = _load(private_pem)
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_jwk(public_key_pem: bytes) -> dict[str, str]:
    """A public key as JWK (RFC 7517), for those who verify our tokens elsewhere."""
    key = serialization.load_pem_public_key(public_key_pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigurationError("the token key is not a P-256 key")
    return {**_coordinates(key), "kid": _thumbprint(key), "use": "sig", "alg": ALGORITHM}


def read_pem(path: Path) -> bytes:
    """Read a key file; ConfigurationError where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"no token key at {path}: `zenthos up` makes one") from None


def issue(
    private_pem: bytes,
    subject: str,
    role: Role,
    *,
    now: float,
    valid_s: int,
    scopes: Collection[str] = (),
    session: str | None = None,
) -> str:
    """Sign a token for `subject`, valid from `now` (epoch seconds) for `valid_s` seconds."""
    claims: dict[str, str | int] = {
        "iss": ISSUER,
        "sub": subject,
        "role": role.value,
        "scope": " ".join(sorted(scopes)),
        "iat": int(now),
        "exp": int(now) + valid_s,
    }
    if session is not None:
        claims["sid"] = session
    key = _load(private_pem)
    headers = {"kid": _thumbprint(key.public_key())}
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers=headers)


def named_key(token: str) -> str | None:
    """The `kid` that a token proposes; nothing of it is verified."""
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.InvalidTokenError, RecursionError):
        return None
    return kid if isinstance(kid, str) else None


class _Claims(msgspec.Struct, frozen=True):
    """Those that we read; others may be there."""

    iss: str
    sub: str
    role: Role
    iat: int
    exp: int
    scope: str = ""
    sid: str | None = None


_read_claims: Final = msgspec.json.Decoder(_Claims).decode
_SIGNATURE_BYTES: Final = 64
_ECDSA: Final = ec.ECDSA(hashes.SHA256())


@lru_cache(maxsize=8)
def _load_public(public_key_pem: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_public_key(public_key_pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError("the token key is not a P-256 key")
    return key


@lru_cache(maxsize=256)
def _is_es256(header: str) -> bool:
    """Whether a token's header asks for our algorithm, and for nothing that we do not know."""
    fields = msgspec.json.decode(_decode_part(header), type=dict[str, object])
    return fields.get("alg") == ALGORITHM and "crit" not in fields and "b64" not in fields


def _decode_part(part: str) -> bytes:
    """Strictly base64url without padding, in its one canonical form."""
    decoded = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _base64url(decoded) != part:
        raise ValueError("not base64url")
    return decoded


def verify(public_key_pem: bytes, token: str) -> Identity:
    """Check algorithm, signature, issuer and expiry; nothing of it is read before its signature.

    Each check-in of a device comes here: PyJWT, which signs, takes twice as long.

    Raises:
        AuthenticationError: whatever is wrong with the token.
    """
    try:
        claims = _verify_signature(_load_public(public_key_pem), token)
    except (ValueError, InvalidSignature, msgspec.DecodeError, RecursionError) as error:
        raise AuthenticationError(f"token refused: {error or 'bad signature'}") from None
    now = time.time()
    if claims.iss != ISSUER:
        raise AuthenticationError("token refused: of another issuer")
    if claims.exp <= now:
        raise AuthenticationError("token refused: it has expired")
    if claims.iat > now + CLOCK_LEAD_S:
        raise AuthenticationError("token refused: it is of the future")
    return Identity(
        subject=claims.sub,
        role=claims.role,
        scopes=frozenset(claims.scope.split()),
        issued_at=claims.iat,
        session=claims.sid,
    )


def _verify_signature(key: ec.EllipticCurvePublicKey, token: str) -> _Claims:
    """RFC 7515 compact form, RFC 7518 section 3.4: r and s, 32 bytes each."""
    if not token.isascii() or token.count(".") != 2:
        raise ValueError("not a token of three parts")
    header, payload, signature = token.split(".")
    if not _is_es256(header):
        raise ValueError(f"not signed with {ALGORITHM}")
    raw = _decode_part(signature)
    if len(raw) != _SIGNATURE_BYTES:
        raise ValueError("bad signature")
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    key.verify(encode_dss_signature(r, s), f"{header}.{payload}".encode(), _ECDSA)
    return _read_claims(_decode_part(payload))


def _coordinates(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    x, y = (_base64url(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638: names the key in a token's header."""
    canonical = msgspec.json.encode(_coordinates(key), order="sorted")
    return _base64url(hashlib.sha256(canonical).digest())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _load(private_pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(private_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("the token key is not a P-256 key")
    return key
