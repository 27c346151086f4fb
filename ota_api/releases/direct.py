"""Routes of releases read their plainest requests themselves: the framework's way of solving
dependencies takes longer than all the rest of a check-in.

1. Plain is: GET, a path whose parts are well-formed, a token, no query but one nonce or
   `download=true`.
2. Such a request is verified, counted, permitted and answered by the same functions.
3. Everything else goes the ordinary way, which also says what is wrong: there are no refusals of
   its own here that the documented route would not give.
"""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ota_api.auth import check_known, verified_or_counted
from ota_api.releases.answers import Asked, answer
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, Slot
from ota_api.resources import get_resources
from zenthos_core.manifest import FIRMWARE_VERSION, MODEL_VERSION, RELEASE_NAME
from zenthos_core.topics import DEVICE_MODEL

_QUERY: Final = re.compile(rb"(?:nonce=([A-Za-z0-9_-]{16,64})|(download=true))?")
_SCHEME: Final = "Bearer "

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """By the rules above."""

    def get_route_handler(self) -> Handler:
        """FastAPI's hook."""
        ordinary = super().get_route_handler()

        async def handle(request: Request) -> Response:
            asked = _read(request)
            authorization = request.headers.get("authorization", "")
            if asked is None or not authorization.startswith(_SCHEME):
                return await ordinary(request)
            resources = get_resources(request)
            token = authorization[len(_SCHEME) :]
            identity = await verified_or_counted(request, resources, token)
            return await answer(request, resources, await check_known(identity), asked)

        return handle


def _read(request: Request) -> Asked | None:
    """Rule 1."""
    query = _QUERY.fullmatch(request.scope["query_string"])
    slot = _slot(request.path_params)
    if query is None or slot is None or request.method != "GET":
        return None
    nonce, download = query.groups()
    return Asked(
        slot,
        request.path_params["version"],
        download is not None,
        nonce.decode() if nonce else None,
    )


def _slot(parts: dict[str, str]) -> Slot | None:
    device_model, name, version = parts["device_model"], parts.get("name"), parts["version"]
    pattern = FIRMWARE_VERSION if name is None else MODEL_VERSION
    if not DEVICE_MODEL.fullmatch(device_model):
        return None
    if version != "latest" and not pattern.fullmatch(version):
        return None
    if name is None:
        return Slot(device_model, FIRMWARE_KINDS)
    return Slot(device_model, MODEL_KINDS, name) if RELEASE_NAME.fullmatch(name) else None
