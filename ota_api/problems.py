"""Every error as RFC 9457 problem+json, with a text that says what to do next.

The only place that knows status codes of our errors.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry import trace
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zenthos_core.errors import (
    AuthenticationError,
    BlobNotFoundError,
    BlobStoreError,
    BusyError,
    ConfigurationError,
    ConflictError,
    GoneError,
    InvalidInputError,
    ManifestError,
    NotFoundError,
    PermissionDeniedError,
    ThrottledError,
    UnavailableError,
    ZenthosError,
)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2

_logger = logging.getLogger(__name__)

_STATUS: Final[dict[type[ZenthosError], HTTPStatus]] = {
    AuthenticationError: HTTPStatus.UNAUTHORIZED,
    PermissionDeniedError: HTTPStatus.FORBIDDEN,
    BlobNotFoundError: HTTPStatus.INTERNAL_SERVER_ERROR,  # a row promised it
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    GoneError: HTTPStatus.GONE,
    ThrottledError: HTTPStatus.TOO_MANY_REQUESTS,
    InvalidInputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ManifestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BlobStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ConfigurationError: HTTPStatus.SERVICE_UNAVAILABLE,
}
_HEADERS: Final[dict[HTTPStatus, dict[str, str]]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": 'Bearer realm="zenthos"'},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_S)},
}
_ADVICE: Final = {
    "There was an error parsing the body": "the body could not be read: send one JSON object",
    HTTPStatus.NOT_FOUND.phrase: "no such route: see /docs",
    HTTPStatus.METHOD_NOT_ALLOWED.phrase: "this route does not take that method: see /docs",
}
"""Instead of what the frameworks say."""
_UNEXPECTED: Final = (
    "unexpected error: report it with the trace_id; the server's log holds the cause"
)
_BODY_CUT: Final = "the connection ended before the body: send it whole"


def problem(
    status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None, **extra: object
) -> JSONResponse:
    """A problem document; `extra` are its extension members."""
    content = {
        "type": f"urn:zenthos:problem:{status.phrase.lower().replace(' ', '-')}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        **extra,
    }
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        content["trace_id"] = f"{context.trace_id:032x}"
    all_headers = {**_HEADERS.get(status, {}), **(headers or {})}
    return JSONResponse(content, status, all_headers, MEDIA_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every exception that is foreseen with a problem document."""
    app.exception_handler(ZenthosError)(_on_own_error)
    app.exception_handler(RequestValidationError)(_on_invalid_request)
    app.exception_handler(HTTPException)(_on_http_error)
    app.exception_handler(psycopg.OperationalError)(_on_database_away)
    app.exception_handler(PoolTimeout)(_on_database_away)


async def _on_own_error(_: Request, error: ZenthosError) -> JSONResponse:
    status = next((_STATUS[t] for t in type(error).__mro__ if t in _STATUS), None)
    if status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.error("%s", error, exc_info=error)
    again = {"Retry-After": str(error.retry_after_s)} if isinstance(error, ThrottledError) else None
    status = status or HTTPStatus.INTERNAL_SERVER_ERROR
    return problem(status, str(error), headers=again, **error.members)


async def _on_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    errors = [
        {"at": "/".join(map(str, found["loc"])), "detail": found["msg"]} for found in error.errors()
    ]
    detail = "; ".join(f"{found['at']}: {found['detail']}" for found in errors[:3])
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


async def _on_http_error(_: Request, error: HTTPException) -> JSONResponse:
    status = HTTPStatus(error.status_code)
    detail = _ADVICE.get(error.detail, error.detail)
    return problem(status, detail, headers=error.headers)


async def _on_database_away(_: Request, error: Exception) -> JSONResponse:
    _logger.error("database: %s", error)
    detail = f"the database cannot be reached or is busy: try again in {RETRY_AFTER_S} s"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)


class UnexpectedErrors:
    """ASGI middleware: whatever has no handler is a problem too, while nothing is sent yet.

    Inside what adds headers: Starlette's own handler for `Exception` stands outside of all.
    A client that goes before its body has come is no error of ours.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def note_and_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, note_and_send)
        except ClientDisconnect:
            if not started:
                await problem(HTTPStatus.BAD_REQUEST, _BODY_CUT)(scope, receive, send)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            _logger.exception("unexpected error")
            trace.get_current_span().record_exception(error)
            await problem(HTTPStatus.INTERNAL_SERVER_ERROR, _UNEXPECTED)(scope, receive, send)
