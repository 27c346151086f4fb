"""`python -m ota_api`: serves until SIGTERM or SIGINT, then finishes what is under way."""

import logging
import sys
from typing import Final

import uvicorn

from ota_api.app import create_app
from ota_api.patience import KEEP_ALIVE_S, PatientProtocol
from ota_api.resources import TokenKeys
from zenthos_core.errors import ConfigurationError
from zenthos_core.observability import setup_logging, setup_telemetry
from zenthos_core.settings import Settings, load_settings

GRACE_S: Final = 10
"""Longest wait at a stop for requests under way; a device resumes its download elsewhere."""


def main() -> int:
    """Exit status 2 where a setting keeps the server from starting."""
    try:
        settings = load_settings()
        setup_logging("ota-api", settings.log_level)
        TokenKeys.read(settings)
    except ConfigurationError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 2
    setup_telemetry("ota-api")
    return _serve(settings)


def _serve(settings: Settings) -> int:
    config = uvicorn.Config(
        create_app(settings),
        http=PatientProtocol,
        timeout_keep_alive=KEEP_ALIVE_S,
        limit_concurrency=settings.ota_max_connections,
        host=settings.ota_host,
        port=settings.ota_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
