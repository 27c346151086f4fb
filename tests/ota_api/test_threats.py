"""Attacks by the rows of docs/reference/threats.md that no other test of the server makes."""

import ast
import re
from pathlib import Path
from typing import Any, Final

import pytest

from tests.ota_api.callers import Requests
from tests.ota_api.conftest import Ota
from tests.ota_api.injection import (
    body_schema,
    in_path,
    string_parameters,
    string_places,
    with_text,
)

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/reference/threats.md"
ROWS = [
    *("arbitrary software", "wrong software", "rollback", "indefinite freeze", "fast-forward"),
    *("mix-and-match", "endless data", "key compromise", "mirrors", "eavesdropping"),
    *("replayed reports", "brick", "forged tokens", "another's token", "revoked tokens"),
    *("path traversal", "oversized bodies", "malformed JSON", "SQL", "exhaustion", "browsers"),
    "foreign topics",
]

TEXTS = [
    "'; DROP TABLE devices; --",
    "x' OR '1'='1",
    "%s %(id)s {0} $1",
    "\\'; SELECT pg_sleep(9); --",
    "../../../../etc/passwd",
    "a\u0000b",
    "a\nb\r\nSet-Cookie: x",
    "\u202e\U0001f600" * 3 + "\uffff",
    "x" * 5_000,
]


def rows() -> dict[str, list[str]]:
    """Tests that the table names, by row."""
    found = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and "::" in cells[2]:
            found[cells[0]] = re.findall(r"`([\w/.]+::\w+)`", cells[2])
    return found


def test_every_attack_has_a_row() -> None:
    named = "\n".join(rows()).lower()
    assert [row for row in ROWS if row.lower() not in named] == []


@pytest.mark.parametrize("row", rows())
def test_the_tests_of_a_row_exist(row: str) -> None:
    for test in rows()[row]:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, functions)}, test


def tables(ota: Ota) -> list[tuple[Any, ...]]:
    return ota.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )


IN_CI: Final = [pytest.param(text, marks=pytest.mark.fault) for text in TEXTS[2:]]
"""Each takes seconds: all are sent there."""


@pytest.mark.parametrize("text", [*TEXTS[:2], *IN_CI], ids=lambda text: repr(text[:20]))
def test_sql_and_worse_in_every_string_field(ota: Ota, text: str) -> None:
    """Each body field, path and query parameter of the document: refused, or stored as it is."""
    requests = Requests(ota)
    document = ota.http.get("/openapi.json").json()
    before, devices = tables(ota), ota.rows("SELECT count(*) FROM devices")[0][0]
    failures = []
    sent = 0
    for case, options in hostile_requests(requests, document, text):
        answer = ota.http.request(**options)
        sent += 1
        refused = answer.headers.get("content-type") == "application/problem+json"
        if answer.status_code >= 500 or (answer.status_code >= 400 and not refused):
            failures.append(f"{case}: {answer.status_code} {answer.text[:200]}")
        if "set-cookie" in answer.headers:
            failures.append(f"{case}: a header was smuggled in")
    assert failures == []
    assert sent > 100
    assert tables(ota) == before
    assert ota.rows("SELECT count(*) FROM devices")[0][0] >= devices


def hostile_requests(requests: Requests, document: dict[str, Any], text: str) -> Any:
    """What is attacked, and what httpx sends."""
    from tests.ota_api.callers import Operation

    for path, item in document["paths"].items():
        for verb, described in item.items():
            operation = Operation(verb.upper(), path)
            device_id = requests.new_device()
            callers = ("admin service", "device") if "{device_id}" in path else ("admin service",)
            good, body = requests.path(operation, device_id), requests.body(operation)
            for caller in callers:
                sent = {"method": operation.method, "headers": requests.headers(caller, device_id)}
                case = f"{operation.method} {path} as {caller}"
                schema = body_schema(described)
                for place in sorted(string_places(schema, document), key=str) if schema else ():
                    changed = with_text(body.get("json", {}), place, text)
                    yield f"{case} {place}", {**sent, "url": good, "json": changed}
                for name in string_parameters(described, "query"):
                    yield f"{case} ?{name}", {**sent, "url": good, "params": {name: text}, **body}
                for name in string_parameters(described, "path"):
                    hostile = path.replace(f"{{{name}}}", in_path(text))
                    filled = requests.path(Operation(operation.method, hostile), device_id)
                    yield f"{case} {{{name}}}", {**sent, "url": filled, **body}
