"""Tokens that no honest library would make, put together by hand."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def claims(device_id: str, **changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None leaves the claim out."""
    now = int(time.time())
    good = {
        "iss": "zenthos",
        "sub": device_id,
        "role": "device",
        "scope": "read",
        "iat": now,
        "exp": now + 3600,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(
    header: dict[str, Any] | str, body: dict[str, Any] | bytes, key: Any = b"", *, sign: str = ""
) -> str:
    """A token whose header says one algorithm and that is signed with another, if need be."""
    head = {"typ": "JWT", "alg": header} if isinstance(header, str) else header
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    text = f"{_encode(json.dumps(head).encode())}.{_encode(content)}"
    return f"{text}.{_encode(_sign(sign or head['alg'], key, text.encode()))}"


def altered(token: str, part: int, at: int) -> str:
    """One bit of a part (0 header, 1 claims, 2 signature) turned over."""
    parts = token.split(".")
    data = bytearray(decode(parts[part]))
    data[at] ^= 1
    parts[part] = _encode(bytes(data))
    return ".".join(parts)


def decode(part: str) -> bytes:
    """base64url without padding."""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """The public half."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(algorithm: str, key: Any, text: bytes) -> bytes:
    match algorithm[:2], algorithm[2:]:
        case "HS", size:
            return hmac.new(key, text, getattr(hashlib, f"sha{size}")).digest()
        case "ES", size:
            digest = {"256": hashes.SHA256(), "384": hashes.SHA384()}[size]
            width = (key.curve.key_size + 7) // 8
            numbers = decode_dss_signature(key.sign(text, ec.ECDSA(digest)))
            return b"".join(number.to_bytes(width, "big") for number in numbers)
        case "RS", "256":
            signature: bytes = key.sign(text, padding.PKCS1v15(), hashes.SHA256())
            return signature
    return b""
