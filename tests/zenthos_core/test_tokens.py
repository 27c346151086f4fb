"""ES256 tokens. Attacks on them over HTTP are in tests/ota_api/test_access.py."""

import time
from base64 import b64encode
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from zenthos_core import tokens
from zenthos_core.errors import AuthenticationError, ConfigurationError
from zenthos_core.tokens import Identity, Role

PRIVATE = tokens.generate_private_key()
PUBLIC = tokens.public_pem(PRIVATE)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_issued_token_verifies() -> None:
    now = int(time.time())
    token = tokens.issue(
        PRIVATE, "field-1", Role.DEVICE, now=now, valid_s=60, scopes={"read", "publish"}
    )
    expected = Identity("field-1", Role.DEVICE, frozenset({"read", "publish"}), now)
    assert tokens.verify(PUBLIC, token) == expected


def test_token_of_a_session() -> None:
    token = tokens.issue(PRIVATE, "x", Role.VIEWER, now=time.time(), valid_s=60, session="abc")
    assert tokens.verify(PUBLIC, token).session == "abc"


DEEP = b64encode(b'{"a":' + b"[" * 5_000).rstrip(b"=").decode() + ".e30.AAAA"
"""A header that no parser follows to its end."""


@pytest.mark.parametrize("token", ["", "a.b.c", "é" * 10, DEEP])
def test_what_is_no_token_names_no_key(token: str) -> None:
    assert tokens.named_key(token) is None


def test_token_without_scopes() -> None:
    token = tokens.issue(PRIVATE, "x", Role.VIEWER, now=time.time(), valid_s=60)
    assert tokens.verify(PUBLIC, token).scopes == frozenset()


def test_expired() -> None:
    token = tokens.issue(PRIVATE, "x", Role.VIEWER, now=time.time() - 61, valid_s=60)
    with pytest.raises(AuthenticationError, match="expired"):
        tokens.verify(PUBLIC, token)


def test_of_another_key() -> None:
    token = tokens.issue(PRIVATE, "x", Role.VIEWER, now=time.time(), valid_s=60)
    with pytest.raises(AuthenticationError):
        tokens.verify(tokens.public_pem(tokens.generate_private_key()), token)


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "....", "\u0000", "é" * 10, DEEP])
def test_no_token(token: str) -> None:
    with pytest.raises(AuthenticationError):
        tokens.verify(PUBLIC, token)


def test_key_has_a_name_that_does_not_change() -> None:
    token = tokens.issue(PRIVATE, "x", Role.VIEWER, now=time.time(), valid_s=60)
    assert jwt.get_unverified_header(token)["kid"] == tokens.public_jwk(PUBLIC)["kid"]
    assert tokens.public_jwk(PUBLIC) == tokens.public_jwk(PUBLIC)


def test_thumbprint_is_rfc_7638() -> None:
    jwk = tokens.public_jwk(PUBLIC)
    canonical = '{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}'.format(**jwk)
    import hashlib
    from base64 import urlsafe_b64encode

    digest = urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest())
    assert jwk["kid"] == digest.rstrip(b"=").decode()


def test_only_p256_keys_sign() -> None:
    rsa_key = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(ConfigurationError, match="P-256"):
        tokens.public_pem(rsa_key)


def test_missing_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="zenthos up"):
        tokens.read_pem(tmp_path / "token.pem")
