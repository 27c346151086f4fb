"""ES256 tokens: who somebody is and what they may do, verified with the public key alone.

A device's token is also its password at the broker, with its id as user name.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Final

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from zenthos_core.errors import AuthenticationError, ConfigurationError

ALGORITHM: Final = "ES256"
ISSUER: Final = "zenthos"
DEVICE_TOKEN_S: Final = 30 * 24 * 3600


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
    except jwt.InvalidTokenError:
        return None
    return kid if isinstance(kid, str) else None


def verify(public_key_pem: bytes, token: str) -> Identity:
    """Check signature, algorithm, issuer and expiry.

    Raises:
        AuthenticationError: whatever is wrong with the token.
    """
    try:
        claims = jwt.decode(
            token,
            public_key_pem,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            options={"require": ["exp", "iat", "sub", "role"]},
        )
        return Identity(
            subject=claims["sub"],
            role=Role(claims["role"]),
            scopes=frozenset(claims.get("scope", "").split()),
            issued_at=int(claims["iat"]),
            session=claims.get("sid"),
        )
    except (jwt.InvalidTokenError, ValueError) as error:
        raise AuthenticationError(f"token refused: {error}") from None


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
