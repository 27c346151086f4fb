"""Bodies are bounded before anything reads them."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ota_api.problems import problem

MAX_BODY_BYTES: Final = 64 * 1024


class BodyLimit:
    """ASGI middleware: answers 413, by the length announced or else by the bytes that come.

    FastAPI's own `max_body_size` answers in plain text, where every error of ours is a problem.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str, str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit_of(scope["path"], headers.get("content-type", "").lower())
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _advice(limit))
            return message

        await self._app(scope, receive_bounded, send)


def _too_large(limit: int) -> ASGIApp:
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _advice(limit))


def _advice(limit: int) -> str:
    return f"the body is too large: this route takes at most {limit} bytes"
