"""JSON in strict form by its rules; bodies and heads that come too slowly."""

import asyncio
import json
import socket
import time
from contextlib import ExitStack
from http.client import HTTPResponse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from ota_api import bodies, patience
from ota_api.bodies import BodyLimit
from ota_api.resources import POOL_MAX
from ota_api.strict_json import MAX_DEPTH, check_json, is_deep
from tests.ota_api.conftest import Ota, running_ota
from zenthos_core.errors import InvalidInputError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), inner
        )
    ),
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON, st.booleans())
def test_what_is_json_passes(value: object, ascii_only: bool) -> None:
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(st.lists(st.sampled_from("[{"), min_size=1, max_size=140), st.text('"\\[]{}ab'), JSON)
def test_rule_2_depth_as_a_recursion_finds_it(kinds: list[str], text: str, tail: object) -> None:
    value: object = text
    for kind in kinds:
        value = [value, tail] if kind == "[" else {text: value, f"{text}-": tail}
    body = json.dumps(value).encode()
    assert is_deep(body) == (depth_of(value) > MAX_DEPTH)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 65 + b"]" * 65, "deep"),
        (b"[" * 30_000, "deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deep"),
        (b'["' + b"a" * 60_000, "Unterminated"),
        (b'{"a": 1, "b": 2, "a": 3}', "twice"),
        (b'[{"x": {"a": 1, "\\u0061": 2}}]', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": "x\\u0000y"}', "0000"),
        (b'{"a": "x\\\\\\u0000y"}', "0000"),
        (b'{"a": ["\\ud800"]}', "surrogate"),
        (b'{"a": "\xff"}', "UTF-8"),
        ('{"a": "é"}'.encode("utf-16"), "UTF-8"),
        (b"9" * 5000, "JSON"),
        (b"{", "JSON"),
        (b'{"a": 1} x', "JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_rules_1_to_5(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        check_json(body)


def test_what_only_looks_forbidden() -> None:
    check_json(b'{"a": "x\\\\u0000y"}')
    check_json(b'{"a": "\\ud83d\\ude00"}')
    check_json(b"[" * 64 + b"]" * 64)
    check_json(b'["' + b"[{" * 1000 + b'"]')


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "A", "name": "B"}',
        b'{"name": "A", "owner": "x\\u0000"}',
        b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"name": "A", "total_area_hectares": NaN}',
        b'{"name": "\xff"}',
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["application/json", "application/problem+json", ""])
def test_every_json_route_is_strict(shared_ota: Ota, body: bytes, kind: str) -> None:
    headers = shared_ota.headers(Role.ADMIN) | {"Content-Type": kind}
    for path in ("/farms", "/auth/login", "/models/publish"):
        answer = shared_ota.http.post(path, content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"].startswith("the body: ")
    assert shared_ota.rows("SELECT FROM farms WHERE name IN ('A', 'B')") == []


@pytest.mark.parametrize("gap_s", [0.0, 100.0])
def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch, gap_s: float) -> None:
    """A pause, or drop by drop until the time is up."""
    monkeypatch.setattr(bodies, "PAUSE_S", 0.05)
    now = 0.0

    async def receive() -> dict:
        nonlocal now
        if not gap_s:
            await asyncio.sleep(60)
        now += gap_s
        return {"type": "http.request", "body": b"[", "more_body": True}

    async def read(scope: dict, receive: object, send: object) -> None:
        while True:
            await receive()  # type: ignore[operator]

    limited = BodyLimit(read, lambda _path, _type: 1000, monotonic=lambda: now)
    scope = {"type": "http", "path": "/farms", "headers": []}
    with pytest.raises(HTTPException) as error:
        asyncio.run(limited(scope, receive, None))  # type: ignore[arg-type]
    assert error.value.status_code == 408


def test_the_last_of_many_names_twice() -> None:
    names = [f'"{number}":1' for number in range(200_000)]
    with pytest.raises(InvalidInputError, match="'199999' twice"):
        check_json(("{" + ",".join([*names, names[-1]]) + "}").encode())


@pytest.mark.parametrize("path", [b"/" + b"x" * 70_000, b"\x00"])
def test_what_is_no_http_is_a_problem(shared_ota: Ota, path: bytes) -> None:
    with socket.create_connection(("127.0.0.1", shared_ota.settings.ota_port), 10) as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while part := client.recv(4096):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["status"] == 400


def test_bodies_that_take_their_time_hold_no_connection(ota: Ota) -> None:
    head = b"POST /hooks/github-release HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
    with ExitStack() as stack:
        for _ in range(POOL_MAX + 4):
            address = ("127.0.0.1", ota.settings.ota_port)
            client = stack.enter_context(socket.create_connection(address, 10))
            client.sendall(head + b"\r\nContent-Length: 1000\r\n\r\n{")
        time.sleep(0.5)
        assert ota.send("GET", "/farms").status_code == 200


def test_a_head_that_does_not_come(ota_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 1.0)
    with running_ota(ota_settings) as ota:
        whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        for start in (b"", b"GET /hea", whole + b"GET /health HTTP/1.1\r\nX-a: b\r\n"):
            with socket.create_connection(("127.0.0.1", ota.settings.ota_port), 10) as client:
                client.sendall(start)
                began = time.monotonic()
                received = b""
                while part := client.recv(4096):
                    received += part
                assert time.monotonic() - began < 8
                assert received.count(b"200 OK") == start.count(b"\r\n\r\n")
        awaited = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        for head, rest in ((whole, b"\r\n"), (awaited, b"x")):
            with socket.create_connection(("127.0.0.1", ota.settings.ota_port), 10) as client:
                client.sendall(head)
                assert answered(client) == 200
                client.sendall(rest)
                began = time.monotonic()
                while client.recv(4096):
                    pass
                assert time.monotonic() - began < 8, "it holds a connection with nothing"
        with socket.create_connection(("127.0.0.1", ota.settings.ota_port), 10) as client:
            for _ in range(2):  # idle in between for longer than a head may take
                client.sendall(whole)
                assert answered(client) == 200
                time.sleep(1.2)


def answered(client: socket.socket) -> int:
    """The status of an answer, once all of it has come."""
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status
