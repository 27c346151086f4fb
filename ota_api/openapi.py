"""The OpenAPI document tells of errors too: each operation's, as problem documents (RFC 9457)."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from ota_api.problems import MEDIA_TYPE

PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What went wrong, and what to do.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What to do."},
        "trace_id": {"type": "string", "description": "By which the server's log has it."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "detail"],
                "properties": {"at": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
ALWAYS: Final = {
    "400": "The request cannot be read.",
    "404": "There is no such thing.",
    "405": "The route does not take that method.",
    "421": "The server has other names.",
    "422": "Something breaks a rule.",
    "429": "Too many requests: Retry-After says when to come again.",
    "503": "The database, the blob store or the keys cannot be used now.",
}
WITH_TOKEN: Final = {
    "401": "No token, or one that does not hold.",
    "403": "The token is good and does not allow this.",
}
WITH_BODY: Final = {
    "408": "The body did not come in time.",
    "409": "It exists and differs, or is in another state.",
    "413": "The body is too large.",
}
PROBES: Final = ("/health", "/health/ready", "/metrics")
_REFERENCE: Final = {"schema": {"$ref": "#/components/schemas/Problem"}}
_GENERATED: Final = ("HTTPValidationError", "ValidationError")
_CREDENTIALS: Final = ("/auth/", "/claim", "/hooks/github")
"""In the body, or over it: 401 without a token in the header."""


def same_again(answer: type) -> dict[int | str, dict[str, Any]]:
    """What a route that creates says of the same thing a second time."""
    return {HTTPStatus.OK: {"model": answer, "description": "It exists, and is the same."}}


def document_problems(app: FastAPI) -> None:
    """Have the app's document name the errors of each operation."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _GENERATED:
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            errors = {} if path in PROBES else _errors_of(path, verb, operation)
            operation["responses"].pop("422", None)
            for status, meaning in errors.items():
                _add(operation["responses"], status, meaning)
    return document


def _errors_of(path: str, verb: str, operation: dict[str, Any]) -> dict[str, str]:
    errors = dict(ALWAYS)
    if "security" in operation or any(part in path for part in _CREDENTIALS):
        errors |= WITH_TOKEN
    if verb != "get":
        errors |= WITH_BODY
    else:
        errors["409"] = WITH_BODY["409"]
    return errors


def _add(responses: dict[str, Any], status: str, meaning: str) -> None:
    described = responses.setdefault(status, {"description": meaning})
    described.setdefault("content", {})[MEDIA_TYPE] = _REFERENCE
