"""Input meant to break the server: it answers with a problem document and goes on."""

import gzip
import socket
from typing import Any

import httpx
import pytest

from tests.ota_api.conftest import DEVICE_ID, Ota
from zenthos_core.tokens import Role

INJECTIONS = ["'; DROP TABLE devices; --", "x' OR '1'='1", "%s", "%(id)s", "\\'; --", "$1", "{0}"]


def is_problem(answer: httpx.Response) -> bool:
    problem = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and problem["status"] == answer.status_code
        and bool(problem["detail"])
        and problem["type"].startswith("urn:zenthos:problem:")
    )


@pytest.mark.parametrize("text", INJECTIONS)
def test_sql_in_string_fields(ota: Ota, text: str) -> None:
    fields = ("device_id", "device_model", "device_type")
    for field in fields:
        assert ota.register(**{field: text}).status_code == 422
    assert ota.register(farm_name=text).status_code == 201
    names = [farm["name"] for farm in ota.send("GET", "/farms").json()["items"]]
    assert names == [text]
    farm = {"name": f"{text} 2", "owner": text, "crop_type": text}
    created = ota.send("POST", "/farms", json=farm).json()
    assert (created["owner"], created["crop_type"]) == (text, text)
    assert ota.send("GET", "/devices", params={"after": text}).status_code == 200
    assert ota.send("GET", "/devices", params={"device_model": text}).status_code == 422
    noted = ota.signer.model() | {"release_notes": text}
    assert ota.publish(noted).status_code == 201
    found = ota.send("GET", "/models/esp32-s3/irrigation/latest").json()
    assert found["release_notes"] == text


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": "AB"},
        {"device_id": "ab"},
        {"device_id": "a" * 64},
        {"device_id": "-abc"},
        {"device_id": "abc\n"},
        {"device_id": "../abc"},
        {"device_id": "svc:x"},
        {"device_id": None},
        {"device_id": 12345},
        {"device_model": "esp32/s3"},
        {"device_type": "a b"},
        {"farm_name": ""},
        {"farm_name": "  "},
        {"farm_name": " North"},
        {"farm_name": "a\nb"},
        {"farm_name": "a" * 201},
        {"farm_id": "not a uuid", "farm_name": None},
        {"location": {"lat": 91, "lon": 0}},
        {"location": {"lat": 0}},
        {"location": {"lat": "north", "lon": 0}},
        {"location": []},
        {"surprise": 1},
    ],
    ids=str,
)
def test_registration_that_is_not_valid(shared_ota: Ota, changes: dict[str, Any]) -> None:
    answer = shared_ota.register(**{"device_id": "field-sensor-002", **changes})
    assert answer.status_code == 422
    assert is_problem(answer)
    assert answer.json()["errors"]
    assert shared_ota.rows("SELECT id FROM devices") == [(DEVICE_ID,)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b'{"device_id": "\\ud800"}',
        b'{"name": NaN}',
        b'{"name": "x", "total_area_hectares": Infinity}',
        b'{"name": "x", "total_area_hectares": 1e999}',
        b'{"name": "x", "total_area_hectares": ' + b"9" * 5000 + b"}",
        gzip.compress(b"{}", mtime=0),
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("path", ["/farms", "/devices/register", "/models/publish"])
def test_body_that_is_no_valid_json(shared_ota: Ota, path: str, body: bytes) -> None:
    headers = shared_ota.headers(Role.ADMIN) | {"Content-Type": "application/json"}
    answer = shared_ota.http.post(path, content=body, headers=headers)
    assert answer.status_code in {400, 422}
    assert is_problem(answer)


def test_body_that_is_too_large(shared_ota: Ota) -> None:
    body = b'{"name": "' + b"x" * 70_000 + b'"}'
    headers = shared_ota.headers(Role.ADMIN) | {"Content-Type": "application/json"}
    for content in (body, iter([body[:40_000], body[40_000:]])):  # with a length, and chunked
        answer = shared_ota.http.post("/farms", content=content, headers=headers)
        assert answer.status_code == 413
        assert is_problem(answer)


@pytest.mark.parametrize("length", [30_000_000, int("9" * 30)])
def test_publication_that_is_too_large(shared_ota: Ota, length: int) -> None:
    head = f"POST /models/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(
        ("127.0.0.1", shared_ota.settings.ota_port), timeout=10
    ) as client:
        client.sendall(head.encode())
        assert client.recv(4096).split()[1] in {b"413", b"400"}


def test_large_body_of_a_stranger_is_not_read(shared_ota: Ota) -> None:
    body = (b"x" * 65_536 for _ in range(16))
    answer = shared_ota.http.post("/models/publish", content=body)
    assert answer.status_code == 401


@pytest.mark.parametrize("field", ["manifest", "signature", "binary_data"])
@pytest.mark.parametrize("value", ["", "not base64!", "AAA", None, 5, []])
def test_publication_that_is_not_base64(shared_ota: Ota, field: str, value: object) -> None:
    answer = shared_ota.publish(shared_ota.signer.model() | {field: value})
    assert answer.status_code == 422
    assert is_problem(answer)


@pytest.mark.parametrize(
    "change",
    [{"rollout_percentage": 101}, {"rollout_percentage": -1}, {"required": "perhaps"}]
    + [{"release_notes": notes} for notes in ("x" * 10_001, 5)],
    ids=lambda change: str(change)[:40],
)
def test_publication_with_bad_settings(shared_ota: Ota, change: dict[str, object]) -> None:
    assert shared_ota.publish(shared_ota.signer.model() | change).status_code == 422


TRAVERSALS = [
    "/firmware/esp32-s3/..%2f..%2fetc%2fpasswd",
    "/firmware/..%2f..%2f/latest",
    "/firmware/esp32-s3/%2e%2e",
    "/firmware/esp32-s3/v1.0.0%00",
    "/firmware/esp32-s3/v1.0.0%0a",
    "/firmware/esp32-s3/v01.0.0",
    "/firmware/%2e%2e/v1.0.0",
    "/models/esp32-s3/..%2firrigation/latest",
    "/models/esp32-s3/%2e%2e/latest",
    "/models/esp32-s3/irrigation/..%5c..%5cx",
    "/models/esp32-s3/irrigation/LATEST",
    "/devices/..%2f..%2f/status",
    f"/devices/{DEVICE_ID}%00/status",
    "/devices/%27%3b%20DROP%20TABLE%20devices/status",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_paths_that_lead_elsewhere(shared_ota: Ota, path: str) -> None:
    answer = shared_ota.send("GET", f"{path}?download=true")
    assert answer.status_code in {404, 422}
    assert is_problem(answer)


def test_unknown_routes_and_methods(shared_ota: Ota) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("DELETE", "/devices", 405),
        ("PUT", "/farms", 405),
    ):
        answer = shared_ota.send(method, path)
        assert answer.status_code == status
        assert is_problem(answer)
