"""Security headers, CORS, host names; settings that would open too much are refused."""

import psycopg
import pytest
from pydantic import ValidationError

from tests.ota_api.conftest import Ota, running_ota
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role


def test_rule_1_of_every_answer(shared_ota: Ota) -> None:
    for path in ("/health", "/devices", "/nothing", "/farms"):
        headers = shared_ota.send("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'; frame-anc")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "strict-transport-security" not in headers
        assert "access-control-allow-origin" not in headers
    page = shared_ota.http.get("/docs").headers["content-security-policy"]
    assert "script-src 'self'" in page
    assert "frame-ancestors 'none'" in page


def test_rule_1_of_an_unexpected_error(ota: Ota) -> None:
    database = ota.settings.database_url.get_secret_value()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE farms RENAME TO fields")
        answer = ota.send("GET", "/farms")
        connection.execute("ALTER TABLE fields RENAME TO farms")
    assert (answer.status_code, answer.json()["title"]) == (500, "Internal Server Error")
    assert "the server's log holds the cause" in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert ota.send("GET", "/farms").status_code == 200


def test_rule_2_nothing_is_stored_but_what_says_so(ota: Ota) -> None:
    registered = ota.register()
    assert registered.headers["cache-control"] == "no-store"
    assert ota.send("GET", "/devices").headers["cache-control"] == "no-store"
    ota.publish(ota.signer.model())
    path = "/models/esp32-s3/irrigation/latest?download=true"
    assert ota.send("GET", path).headers["cache-control"] == "no-cache"


def test_rule_3_https(ota_settings: Settings) -> None:
    from ota_api.app import create_app
    from ota_api.headers import ResponseHeaders

    secure = ota_settings.model_copy(update={"ota_url": "https://ota.example.com"})
    options = [m.kwargs for m in create_app(secure).user_middleware if m.cls is ResponseHeaders]
    assert options == [{"https": True, "shared": False}]
    with running_ota(ota_settings) as ota:
        assert "strict-transport-security" not in ota.http.get("/health").headers


def test_origins_that_are_named_may_read(ota_settings: Settings) -> None:
    ours = "https://farm.example.com"
    settings = ota_settings.model_copy(update={"ota_cors_origins": f"{ours}, http://a.test:8080"})
    with running_ota(settings) as ota:
        asked = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "Authorization",
        }
        allowed = ota.http.options("/devices", headers={"Origin": ours, **asked})
        assert allowed.headers["access-control-allow-origin"] == ours
        assert "access-control-allow-credentials" not in allowed.headers
        answer = ota.send("GET", "/devices", headers={"Origin": ours})
        assert answer.headers["access-control-allow-origin"] == ours
        assert "Origin" in answer.headers["vary"]
        for other in ("https://evil.example", "null", f"{ours}.evil.example"):
            answer = ota.send("GET", "/devices", headers={"Origin": other})
            assert "access-control-allow-origin" not in answer.headers


def test_hosts_that_are_not_named_are_refused(ota_settings: Settings) -> None:
    settings = ota_settings.model_copy(update={"ota_allowed_hosts": "ota.example.com,127.0.0.1"})
    with running_ota(settings) as ota:
        assert ota.send("GET", "/devices").status_code == 200
        for host in ("ota.example.com", "OTA.example.com:8080"):
            assert ota.send("GET", "/devices", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "ota.example.com.evil.example", "x:1:2"):
            answer = ota.send("GET", "/devices", headers={"Host": host})
            assert answer.status_code == 421
            assert answer.headers["content-type"] == "application/problem+json"
            assert ota.http.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ota_cors_origins", "*"),
        ("ota_cors_origins", "https://*.example.com"),
        ("ota_cors_origins", "null"),
        ("ota_cors_origins", "https://farm.example.com/"),
        ("ota_cors_origins", "farm.example.com"),
        ("ota_allowed_hosts", "*"),
        ("ota_allowed_hosts", "host:8080"),
        ("limits_url", "memcached://127.0.0.1"),
    ],
)
def test_settings_that_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})


def test_query_with_nul(shared_ota: Ota) -> None:
    answer = shared_ota.http.get("/devices?after=a%00b", headers=shared_ota.headers(Role.ADMIN))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
