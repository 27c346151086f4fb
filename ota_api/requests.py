"""What is refused before any route is looked for.

1. Requests under another name than this server's, where its names are set
   (ZENTHOS_OTA_ALLOWED_HOSTS): pages elsewhere that have their name point here get nothing.
   Probes ask by address.
2. U+0000 in the query: no database text holds it.
"""

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ota_api.problems import problem

PROBES: Final = ("/health", "/metrics")


class RequestCheck:
    """ASGI middleware; `hosts` in small letters, without ports; none for any."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.encode() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refuse(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        if self._hosts and not self._is_ours(scope):
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server has other names: use one of ZENTHOS_OTA_ALLOWED_HOSTS",
            )
        if b"%00" in scope["query_string"]:
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "U+0000 in the query: leave it out")
        return None

    def _is_ours(self, scope: Scope) -> bool:
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name, _, port = host.rpartition(b":")
        known = (name if port.isdigit() else host).lower() in self._hosts
        return known or scope["path"].startswith(PROBES)
