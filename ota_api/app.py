"""Builds the application: nothing is opened before it starts."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from ota_api.alerts.routes import router as alerts
from ota_api.analytics.routes import router as analytics
from ota_api.audit.routes import router as audit
from ota_api.background import running
from ota_api.bodies import MAX_BODY_BYTES, BodyLimit
from ota_api.ddi.routes import router as ddi
from ota_api.devices.routes import BULK_PATH
from ota_api.devices.routes import router as devices
from ota_api.devices.schemas import MAX_BULK_BYTES
from ota_api.export.routes import router as export
from ota_api.farms.routes import router as farms
from ota_api.headers import ResponseHeaders
from ota_api.health.routes import router as health
from ota_api.history.routes import router as history
from ota_api.hooks.routes import HOOK_PATH
from ota_api.hooks.routes import router as hooks
from ota_api.hooks.schemas import MAX_HOOK_BYTES
from ota_api.hooks.worker import keep_working
from ota_api.keys.routes import router as keys
from ota_api.keys.versions import keep_key_versions
from ota_api.limits.rates import BINARY_PATHS
from ota_api.lineage.routes import router as lineage
from ota_api.openapi import document_problems
from ota_api.problems import UnexpectedErrors, install_problem_handlers
from ota_api.releases.direct import DirectAnswers
from ota_api.releases.publish_routes import PUBLISH_PATHS
from ota_api.releases.publish_routes import router as publishing
from ota_api.releases.reading import MULTIPART
from ota_api.releases.record_routes import router as release_records
from ota_api.releases.routes import router as releases
from ota_api.releases.schemas import MAX_FORM_BYTES, MAX_PUBLISH_BYTES
from ota_api.releases.uploads import keep_swept
from ota_api.requests import RequestCheck
from ota_api.resources import open_resources
from ota_api.rollouts.routes import router as rollouts
from ota_api.sessions.routes import router as sessions
from ota_api.telemetry import RequestRecorder
from zenthos_core import __version__
from zenthos_core.observability import records_spans
from zenthos_core.settings import Settings

_ROUTERS: Final = (
    *(releases, publishing, release_records, health, keys, sessions, farms, devices, ddi),
    *(rollouts, hooks, alerts, analytics, history, lineage, export, audit),
)
"""Tried one after another: check-ins, which are nearly all requests, come first."""
_BODY_LIMITS: Final = {
    **dict.fromkeys(PUBLISH_PATHS, MAX_PUBLISH_BYTES),
    BULK_PATH: MAX_BULK_BYTES,
    HOOK_PATH: MAX_HOOK_BYTES,
}
_RAW_PATHS: Final = (BULK_PATH, HOOK_PATH)
"""A table, and what is parsed only once its HMAC is known to be good."""


def _body_limit(path: str, content_type: str) -> int:
    if path in PUBLISH_PATHS and content_type.startswith(MULTIPART):
        return MAX_FORM_BYTES
    return _BODY_LIMITS.get(path, MAX_BODY_BYTES)


def _is_plain_work(scope: Scope) -> bool:
    """A device's request while nobody reads spans: even one that is not recorded takes its time."""
    path: str = scope["path"]
    return path.startswith(BINARY_PATHS) and not records_spans()


def create_app(settings: Settings, clock: Callable[[], float] = time.time) -> FastAPI:
    """The server; `clock` gives UTC epoch seconds."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings, clock) as resources:
            app.state.resources = resources
            works = (keep_working, keep_swept, keep_key_versions)
            async with running(*(work(resources) for work in works)):
                yield

    app = FastAPIOffline(
        title="Zenthos OTA",
        summary="Users, device registry, signed releases, rollouts, exports.",
        version=__version__,
        lifespan=lifespan,
        telemetry={
            "operation_spans": False,
            "logs": False,
            "metrics": False,
            "exclude": _is_plain_work,
        },
    )
    app.add_middleware(BodyLimit, limit_of=_body_limit, raw_paths=_RAW_PATHS)
    app.add_middleware(DirectAnswers)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(RequestCheck, hosts=settings.allowed_hosts)
    _add_cors(app, settings.cors_origins)
    https = settings.ota_url.startswith("https:")
    app.add_middleware(ResponseHeaders, https=https, shared=bool(settings.cors_origins))
    app.add_middleware(RequestRecorder)
    install_problem_handlers(app)
    for router in _ROUTERS:
        app.include_router(router)
    document_problems(app)
    return app


def _add_cors(app: FastAPI, origins: Sequence[str]) -> None:
    """Pages of these origins may ask with a token of their own; no cookie goes along."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_credentials=False,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "Range", "If-Range"],
            expose_headers=["ETag", "Location", "Retry-After", "RateLimit", "RateLimit-Policy"],
            max_age=600,
        )
