"""Bodies are bounded before anything reads them: in length, in time, and JSON in its form.

1. A body has at most the route's limit of bytes: 413, by the length announced or by what comes.
2. It comes within MIN_TIME_S and the time that its limit takes at MIN_BYTES_PER_S, and never pauses
   for PAUSE_S: 408, so that nobody holds a request for nothing.
3. JSON keeps the rules of strict_json: 400. All is taken for JSON but uploads and tables by their
   content type, and what comes to `raw_paths`: those routes look at the bytes themselves.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Final

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ota_api.problems import problem
from ota_api.strict_json import check_json
from zenthos_core.errors import InvalidInputError

MAX_BODY_BYTES: Final = 64 * 1024
MIN_TIME_S: Final = 30.0
MIN_BYTES_PER_S: Final = 4096
PAUSE_S: Final = 20.0
NOT_JSON: Final = (
    "multipart/",
    "text/csv",
    "application/octet-stream",
    "application/zip",
    "application/x-www-form-urlencoded",
)
IN_A_THREAD_BYTES: Final = 256 * 1024
_LATE: Final = "the body did not come in time: send it again, faster"


class BodyLimit:
    """ASGI middleware, by rules 1 to 3.

    FastAPI's own `max_body_size` answers in plain text, where every error of ours is a problem.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_of: Callable[[str, str], int],
        raw_paths: Collection[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._limit_of = limit_of
        self._raw_paths = frozenset(raw_paths)
        self._monotonic = monotonic

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
        is_raw = scope["path"] in self._raw_paths
        is_json = not is_raw and not headers.get("content-type", "").lower().startswith(NOT_JSON)
        body = _Body(receive, limit, self._monotonic, is_json=is_json)
        await self._app(scope, body.receive, send)


class _Body:
    """Of one request, as it comes."""

    def __init__(
        self, receive: Receive, limit: int, monotonic: Callable[[], float], *, is_json: bool
    ) -> None:
        self._receive = receive
        self._limit = limit
        self._monotonic = monotonic
        self._parts: list[bytes] | None = [] if is_json else None
        self._received = 0
        self._ends_at: float | None = None
        self._is_whole = False

    async def receive(self) -> Message:
        """The next message, by the rules; afterwards the end of the connection, in its own time."""
        if self._is_whole:
            return await self._receive()
        message = await self._receive_in_time()
        if message["type"] != "http.request":
            return message
        part = message.get("body", b"")
        self._received += len(part)
        if self._received > self._limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _advice(self._limit))
        if self._parts is not None:
            self._parts.append(part)
        if not message.get("more_body", False):
            self._is_whole = True
            await self._check()
        return message

    async def _receive_in_time(self) -> Message:
        now = self._monotonic()
        if self._ends_at is None:
            self._ends_at = now + MIN_TIME_S + self._limit / MIN_BYTES_PER_S
        if now >= self._ends_at:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, _LATE)
        try:
            async with asyncio.timeout(min(PAUSE_S, self._ends_at - now)):
                return await self._receive()
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, _LATE) from None

    async def _check(self) -> None:
        """Rule 3, of the whole."""
        if not self._parts or not self._received:
            return
        body, self._parts = b"".join(self._parts), None
        try:
            if len(body) > IN_A_THREAD_BYTES:
                await to_thread.run_sync(check_json, body)
            else:
                check_json(body)
        except InvalidInputError as error:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the body: {error}") from None


def _too_large(limit: int) -> ASGIApp:
    return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _advice(limit))


def _advice(limit: int) -> str:
    return f"the body is too large: this route takes at most {limit} bytes"
