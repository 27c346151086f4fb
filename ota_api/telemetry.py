"""Counts and logs every request; spans are FastAPI's own, on the providers we install."""

import logging
import time
from typing import Final

from opentelemetry import metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger("ota_api.access")
_requests: Final = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.requests_total", description="Requests answered, by status code."
)
_QUIET: Final = ("/health", "/metrics")
"""Probes ask every few seconds: counted, logged only at DEBUG."""


class RequestRecorder:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what an exception that passes through here becomes
        started = time.perf_counter()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            _record(scope, status, time.perf_counter() - started)


def _record(scope: Scope, status: int, seconds: float) -> None:
    _requests.add(1, {"status": status})
    path = scope["path"]
    level = logging.DEBUG if path.startswith(_QUIET) else logging.INFO
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
    }
    _logger.log(level, "request", extra=fields)
