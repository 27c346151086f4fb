"""Headers of every answer: what browsers may do with it, and what routes have added.

1. Nothing is sniffed, framed, or loaded by another site; no script runs but on the documentation's
   pages, which need their own.
2. What does not say how long it is good for is not stored: answers are somebody's own, or secrets.
   What has an ETag may be kept and asked about.
3. Browsers are held to HTTPS where ZENTHOS_OTA_URL is of that kind.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ADDED: Final = "zenthos_headers"
"""In the scope: a list of headers for the answer, whichever response is sent."""
DOCUMENTATION: Final = ("/docs", "/redoc", "/static-offline-docs")
HSTS_S: Final = 365 * 86_400

Headers = list[tuple[bytes, bytes]]

_ALWAYS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_API: Final[Headers] = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
_PAGES: Final[Headers] = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
        b" img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:;"
        b" base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_NO_STORE: Final = (b"cache-control", b"no-store")
_ASK_AGAIN: Final = (b"cache-control", b"no-cache")


def add_header(scope: Scope, name: bytes, value: str) -> None:
    """To the answer of this request, an error too."""
    added: Headers = scope.setdefault(ADDED, [])
    added.append((name, value.encode("latin-1")))


class ResponseHeaders:
    """ASGI middleware, by rules 1 to 3; `shared` where other origins may read answers (CORS)."""

    def __init__(self, app: ASGIApp, *, https: bool, shared: bool) -> None:
        hsts = [(b"strict-transport-security", f"max-age={HSTS_S}".encode())] if https else []
        policy = b"cross-origin" if shared else b"same-origin"
        self._app = app
        self._pages = _ALWAYS + _PAGES + hsts
        self._api = [*_ALWAYS, *_API, (b"cross-origin-resource-policy", policy), *hsts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added: Headers = []
        scope[ADDED] = added
        is_page = scope["path"].startswith(DOCUMENTATION)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: Headers = list(message.get("headers", ()))
                if not is_page:
                    headers += _freshness(headers)
                headers += self._pages if is_page else self._api
                headers += added
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _freshness(headers: Headers) -> Headers:
    """Rule 2."""
    names = {name.lower() for name, _ in headers}
    if b"cache-control" in names:
        return []
    return [_ASK_AGAIN if b"etag" in names else _NO_STORE]
