"""The plainest requests for releases are answered before the framework looks for a route, which
takes longer than all the rest of a check-in.

1. Plain is: GET, a path whose parts are well-formed, a token, no query but one nonce or
   `download=true`.
2. Such a request is verified, counted, permitted and answered by the same functions as on the
   documented route; its errors, also those from the answer's beginning, become problems by the same
   handlers.
3. Everything else goes the ordinary way, which also says what is wrong: there are no refusals of
   its own here that the documented route would not give.
"""

import re
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ota_api.auth import check_known, verified_or_counted
from ota_api.releases.answers import LATEST, Asked, answer
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, Slot
from ota_api.resources import get_resources
from zenthos_core.manifest import FIRMWARE_VERSION, MODEL_VERSION, RELEASE_NAME
from zenthos_core.topics import DEVICE_MODEL

_QUERY: Final = re.compile(rb"(?:nonce=([A-Za-z0-9_-]{16,64})|(download=true))?")
_SCHEME: Final = b"Bearer "
_FIRMWARE_PARTS: Final = 4
_MODEL_PARTS: Final = 5


class DirectAnswers:
    """ASGI middleware, by the rules above; inside whatever looks at every request, outside what
    only routes need: that takes a third of a check-in's time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _read(scope)
        token = _token(scope) if asked is not None else None
        if asked is None or token is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def note_and_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        request = Request(scope, receive)
        try:
            response = await _answer(request, token, asked)
            await response(scope, receive, note_and_send)
        except Exception as error:
            handler = None if started else _handler(request.app, error)
            if handler is None:
                raise
            await (await handler(request, error))(scope, receive, send)


async def _answer(request: Request, token: str, asked: Asked) -> Response:
    """Rule 2."""
    resources = get_resources(request)
    identity = await verified_or_counted(request, resources, token)
    return await answer(request, resources, await check_known(identity), asked)


def _handler(app: FastAPI, error: Exception) -> Any:
    """The application's, for the nearest kind of error it has one for."""
    handlers: dict[Any, Any] = app.exception_handlers
    return next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)


def _read(scope: Scope) -> Asked | None:
    """Rule 1."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    parts = scope["path"].split("/")
    slot = _slot(parts)
    query = _QUERY.fullmatch(scope["query_string"]) if slot is not None else None
    if query is None or slot is None:
        return None
    nonce, download = query.groups()
    return Asked(slot, parts[-1], download is not None, nonce.decode() if nonce else None)


def _slot(parts: list[str]) -> Slot | None:
    if len(parts) == _FIRMWARE_PARTS and parts[1] == "firmware":
        name, pattern = None, FIRMWARE_VERSION
    elif len(parts) == _MODEL_PARTS and parts[1] == "models" and RELEASE_NAME.fullmatch(parts[3]):
        name, pattern = parts[3], MODEL_VERSION
    else:
        return None
    if not DEVICE_MODEL.fullmatch(parts[2]):
        return None
    if parts[-1] != LATEST and not pattern.fullmatch(parts[-1]):
        return None
    return Slot(parts[2], FIRMWARE_KINDS if name is None else MODEL_KINDS, name)


def _token(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1 or not given[0].startswith(_SCHEME):
        return None
    return str(given[0][len(_SCHEME) :].decode("latin-1"))
