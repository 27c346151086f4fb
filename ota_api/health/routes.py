"""Health and metrics, for anyone: probes and Prometheus."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ota_api.health.schemas import Health, Readiness
from ota_api.health.service import OK, check_readiness
from ota_api.resources import Opened
from zenthos_core import __version__

router = APIRouter(tags=["health"])


@router.get("/health")
async def get_health(resources: Opened) -> Health:
    """The process lives."""
    return Health(status="ok", timestamp=int(resources.clock()), version=__version__)


@router.get("/health/ready", responses={HTTPStatus.SERVICE_UNAVAILABLE: {"model": Readiness}})
async def get_readiness(resources: Opened, response: Response) -> Readiness:
    """Database, blob store and keys can be used; 503 with what is wrong where not."""
    checks = await check_readiness(resources)
    ready = all(found == OK for found in checks.values())
    if not ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return Readiness(status="ready" if ready else "not ready", checks=checks)


@router.get("/metrics", response_class=Response)
async def get_metrics() -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
