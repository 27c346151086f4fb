"""Tokens that must fail, what a device may fetch. Routes and roles: test_privileges.py."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest

from tests.ota_api.conftest import DEVICE_ID, Ota
from zenthos_core import tokens
from zenthos_core.tokens import Role


def test_publishing_takes_the_scope(shared_ota: Ota) -> None:
    for role in (Role.ADMIN, Role.OPERATOR):
        token = shared_ota.token(role, scopes=["read"])
        headers = {"Authorization": f"Bearer {token}"}
        answer = shared_ota.http.post(
            "/models/publish", json=shared_ota.signer.model(), headers=headers
        )
        assert answer.status_code == 403
        assert "scope publish" in answer.json()["detail"]


def test_refusals_say_what_to_do(shared_ota: Ota) -> None:
    answer = shared_ota.send("GET", "/devices", None)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 401
    assert "Authorization: Bearer" in answer.json()["detail"]


def encode_bytes(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_part(content: dict[str, Any]) -> str:
    return encode_bytes(json.dumps(content).encode())


def forged_tokens(ota: Ota) -> dict[str, str]:
    """Tokens by what is wrong with them."""
    now = int(time.time())
    claims = {"iss": "zenthos", "sub": "x", "role": "admin", "iat": now, "exp": now + 60}
    endless = {name: value for name, value in claims.items() if name != "exp"}
    header, payload, signature = ota.token(Role.ADMIN).split(".")
    public = ota.settings.token_public_key_file.read_bytes()
    private = ota.settings.token_private_key_file.read_bytes()
    symmetric = f"{encode_part({'alg': 'HS256', 'typ': 'JWT'})}.{encode_part(claims)}"
    mac = hmac.digest(public, symmetric.encode(), "sha256")
    return {
        "alg none": f"{encode_part({'alg': 'none'})}.{payload}.",
        "alg none, signature kept": f"{encode_part({'alg': 'None'})}.{payload}.{signature}",
        "HS256 with the public key": f"{symmetric}.{encode_bytes(mac)}",
        "expired": ota.token(Role.ADMIN, now=now - 7200),
        "from the future": ota.token(Role.ADMIN, now=now + 3600),
        "tampered claims": f"{header}.{encode_part(claims)}.{signature}",
        "tampered signature": f"{header}.{payload}.{signature[:-4]}AAAA",
        "other key": jwt.encode(claims, tokens.generate_private_key(), "ES256"),
        "other issuer": jwt.encode({**claims, "iss": "elsewhere"}, private, "ES256"),
        "no expiry": jwt.encode(endless, private, "ES256"),
        "unknown role": jwt.encode({**claims, "role": "root"}, private, "ES256"),
        "not a token": "a.b.c",
        "long": "x" * 8000,
    }


def test_tokens_that_must_fail(shared_ota: Ota) -> None:
    passed = []
    for attack, token in forged_tokens(shared_ota).items():
        headers = {"Authorization": f"Bearer {token}"}
        if shared_ota.http.get("/devices", headers=headers).status_code != 401:
            passed.append(attack)
    assert passed == []


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "bearer a b"])
def test_authorization_that_must_fail(shared_ota: Ota, header: str) -> None:
    assert shared_ota.http.get("/devices", headers={"Authorization": header}).status_code == 401


def test_a_device_fetches_for_its_own_model_alone(ota: Ota) -> None:
    ota.register()
    ota.publish(ota.signer.model(device_models=["esp32-s3", "esp32-cam"]))
    assert ota.send("GET", "/models/esp32-s3/irrigation/latest", Role.DEVICE).status_code == 200
    for path in ("/models/esp32-cam/irrigation/latest", "/firmware/esp32-cam/latest"):
        answer = ota.send("GET", path, Role.DEVICE)
        assert answer.status_code == 403
        assert "esp32-s3" in answer.json()["detail"]


def test_a_device_that_is_not_registered_fetches_nothing(shared_ota: Ota) -> None:
    headers = shared_ota.headers(Role.DEVICE, "ghost-device")
    answer = shared_ota.http.get("/models/esp32-s3/irrigation/latest", headers=headers)
    assert answer.status_code == 403


def test_token_of_a_registration_works(ota: Ota) -> None:
    token = ota.register().json()["jwt_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert ota.http.get(f"/devices/{DEVICE_ID}/status", headers=headers).status_code == 200
    assert ota.http.get("/devices", headers=headers).status_code == 403


def test_jwks_verifies_tokens(shared_ota: Ota) -> None:
    keys = jwt.PyJWKSet.from_dict(shared_ota.http.get("/.well-known/jwks.json").json())
    token = shared_ota.token(Role.VIEWER, "somebody")
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], issuer="zenthos")
    assert claims["sub"] == "somebody"
