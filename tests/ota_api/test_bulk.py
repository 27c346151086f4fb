"""Devices from a CSV, by the rules of ota_api.devices.bulk."""

import socket
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from ota_api.devices.schemas import MAX_BULK_BYTES, MAX_BULK_ROWS
from ota_api.resources import POOL_MAX
from tests.ota_api.callers import random_secret
from tests.ota_api.conftest import Ota
from zenthos_core.tokens import Role

HEADER = "device_id,device_model,device_type,farm_name"


def send(ota: Ota, body: str | bytes, **options: Any) -> httpx.Response:
    headers = {"Content-Type": "text/csv"}
    return ota.send("POST", "/devices/bulk", content=body, headers=headers, **options)


def outcomes(answer: httpx.Response) -> list[tuple[int, str, str]]:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    return [(row["line"], row["device_id"], row["outcome"]) for row in rows]


def test_rule_1_all_columns(ota: Ota) -> None:
    secret = random_secret()
    answer = send(
        ota,
        "\ufeffdevice_id,device_model,device_type,farm_name,lat,lon,report_interval_s,tags,"
        f'factory_secret\r\nfield-1,esp32-s3,soil,"North, upper",52.5,13.4,900,b a,{secret}\r\n',
    )
    assert outcomes(answer) == [(2, "field-1", "created")]
    device = ota.send("GET", "/devices/field-1/status").json()
    assert device["location"] == {"lat": 52.5, "lon": 13.4}
    assert (device["report_interval_s"], device["tags"]) == (900, ["a", "b"])
    assert ota.rows("SELECT name FROM farms") == [("North, upper",)]
    claim = ota.http.post("/devices/field-1/claim", json={"factory_secret": secret})
    assert claim.status_code == 200


def test_rule_2_a_line_is_refused_with_its_reason_and_the_others_are_registered(ota: Ota) -> None:
    ota.register("field-5", device_type="camera")
    answer = send(
        ota,
        f"{HEADER},lat,lon,farm_id\n"
        "field-1,esp32-s3,soil,North,,,\n"
        "FIELD,esp32-s3,soil,North,,,\n"
        "field-2,esp32-s3,soil,North,95,13,\n"
        "field-3,esp32-s3,soil,,,,\n"
        "field-4,esp32-s3,soil,,,,00000000-0000-0000-0000-000000000000\n"
        "field-5,esp32-s3,soil,North,,,\n"
        "field-6,esp32-s3,soil,North,,,,surplus\n"
        "field-1,esp32-cam,soil,North,,,\n"
        "svc-x,esp32-s3,soil,North,,,\n"
        "field-7,esp32-s3,soil,South,,,\n",
    )
    body = answer.json()
    assert (body["created"], body["unchanged"], body["refused"]) == (2, 0, 8)
    reasons = {row["line"]: row["detail"] for row in body["rows"] if row["detail"]}
    expected = {
        3: "device_id",
        4: "location/lat",
        5: "farm_id or farm_name",
        6: "POST /farms",
        7: "another device_type",
        8: "surplus",
        9: "another device_model",
        10: "name services",
    }
    assert {line: word in reasons[line] for line, word in expected.items()} == dict.fromkeys(
        expected, True
    )
    registered = ota.rows("SELECT id FROM devices ORDER BY id")
    assert registered == [("field-1",), ("field-5",), ("field-7",)]


def test_rule_2_a_refused_line_leaves_no_farm(ota: Ota) -> None:
    ota.register("field-1")
    send(ota, f"{HEADER}\nfield-1,esp32-s3,soil_sensor,Nowhere\n")
    assert ota.rows("SELECT name FROM farms") == [("North",)]


def test_rule_3_the_same_file_again_changes_nothing(ota: Ota) -> None:
    body = f"{HEADER}\nfield-1,esp32-s3,soil,North\n"
    first = send(ota, body).json()["rows"][0]["jwt_token"]
    logged = ota.rows("SELECT count(*) FROM audit_log")
    assert outcomes(send(ota, body)) == [(2, "field-1", "unchanged")]
    assert ota.rows("SELECT count(*) FROM audit_log") == logged
    headers = {"Authorization": f"Bearer {first}"}
    assert ota.http.get("/devices/field-1/status", headers=headers).status_code == 200


def test_rule_3_another_factory_secret_is_said_not_to_be_set(ota: Ota) -> None:
    header, line = f"{HEADER},factory_secret", "field-1,esp32-s3,soil,North"
    send(ota, f"{header}\n{line},{'x' * 22}\n")
    (same,) = send(ota, f"{header}\n{line},{'x' * 22}\n").json()["rows"]
    assert (same["outcome"], same["detail"]) == ("unchanged", None)
    (other,) = send(ota, f"{header}\n{line},{'y' * 22}\n").json()["rows"]
    assert other["outcome"] == "unchanged"
    assert "its factory secret was not set" in other["detail"]
    claim = {"factory_secret": "x" * 22}
    assert ota.http.post("/devices/field-1/claim", json=claim).status_code == 200
    (claimed,) = send(ota, f"{header}\n{line},{'x' * 22}\n").json()["rows"]
    assert "it was used" in claimed["detail"]
    assert "register" not in claimed["detail"], "that would void the token it has got"


def test_rule_4_tokens_for_those_without_a_secret(ota: Ota) -> None:
    body = (
        f"{HEADER},factory_secret\na-1,esp32-s3,soil,North,\na-2,esp32-s3,soil,North,{'x' * 22}\n"
    )
    answer = send(ota, body)
    assert answer.headers["cache-control"] == "no-store"
    given = [row["jwt_token"] is not None for row in answer.json()["rows"]]
    assert given == [True, False]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("", "lacks device_id"),
        ("device_id,device_model\na-1,esp32-s3\n", "lacks device_type"),
        (f"{HEADER},status\n", "unknown status"),
        (f"{HEADER},farm_name\n", "repeats farm_name"),
        (b"\xff\xfe\x00", "no CSV"),
        (f'{HEADER}\n"a-1,esp32-s3', "no CSV"),
        (f"{HEADER}\n" + f'a-1,esp32-s3,soil,"{"x" * 200_000}"', "no CSV"),
        (f"{HEADER}\n" + "a-1,m,t,f\n" * (MAX_BULK_ROWS + 1), "several files"),
    ],
)
def test_rule_5_a_file_that_is_refused_whole(shared_ota: Ota, body: str, word: str) -> None:
    answer = send(shared_ota, body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


@pytest.mark.parametrize("cell", ["a\x00b", "=cmd()", "'; DROP TABLE devices; --", "%s", "{0}"])
def test_cells_meant_to_break_something(ota: Ota, cell: str) -> None:
    body = f"{HEADER},tags,report_interval_s\n" + "".join(
        f"{','.join(cell if n == column else good for n, good in enumerate(line))}\n"
        for line in [["a-1", "esp32-s3", "soil", "North", "tag", "60"]]
        for column in (0, 1, 2, 4, 5)
    )
    assert {outcome for _, _, outcome in outcomes(send(ota, body))} == {"refused"}


def test_a_file_that_is_too_large(shared_ota: Ota) -> None:
    assert send(shared_ota, b"x" * (MAX_BULK_BYTES + 1)).status_code == 413


def test_a_stranger_s_file_is_not_read(shared_ota: Ota) -> None:
    body = (b"x" * 65_536 for _ in range(15))
    assert shared_ota.http.post("/devices/bulk", content=body).status_code == 401
    assert send(shared_ota, "nonsense", role=Role.VIEWER).status_code == 403


@pytest.mark.parametrize("path", ["/devices/bulk", "/models/publish"])
def test_a_slow_upload_holds_no_database_connection(ota: Ota, path: str) -> None:
    token = ota.headers(Role.ADMIN)["Authorization"]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: 999\r\n\r\n"
    )
    with ExitStack() as slow:
        for _ in range(POOL_MAX + 4):
            upload = socket.create_connection(("127.0.0.1", ota.settings.ota_port), timeout=10)
            slow.enter_context(upload).sendall(f"{head}device_id".encode())
        assert ota.send("GET", "/farms").status_code == 200


def test_many_devices(ota: Ota) -> None:
    rows = [f"field-{n:04},esp32-s3,soil,Farm {n % 7}" for n in range(500)]
    answer = send(ota, "\n".join([HEADER, *rows]))
    assert answer.json()["created"] == 500
    assert ota.rows("SELECT count(*), count(DISTINCT farm_id) FROM devices") == [(500, 7)]
