"""Counts and logs every request; spans are FastAPI's own, on the providers we install."""

import logging
import time
from typing import Final

from opentelemetry import metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_logger = logging.getLogger("ota_api.access")
_meter: Final = metrics.get_meter(__name__)
_requests: Final = _meter.create_counter(
    "zenthos.ota.requests_total", description="Requests answered, by status code."
)
_duration: Final = _meter.create_histogram(
    "zenthos.ota.request_duration",
    unit="s",
    description="From a request's head to the end of its answer.",
    explicit_bucket_boundaries_advisory=[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30, 300],
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
    _duration.record(seconds)
    path = scope["path"]
    level = logging.DEBUG if path.startswith(_QUIET) else logging.INFO
    fields = {
        "method": scope["method"],
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
    }
    _logger.log(level, "request", extra=fields)
