"""`python -m ota_api`: serves until SIGTERM or SIGINT, then finishes what is under way."""

import gc
import logging
import sys

import uvicorn

from ota_api.app import create_app
from ota_api.resources import TokenKeys
from ota_api.server import raise_file_limit, server_config
from zenthos_core.errors import ConfigurationError
from zenthos_core.observability import setup_logging, setup_telemetry
from zenthos_core.settings import Settings, load_settings


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
    raise_file_limit()
    server = uvicorn.Server(server_config(create_app(settings), settings))
    gc.collect()
    gc.freeze()  # what is loaded by now stays: collections that look at all of it take 0.1 s
    try:
        server.run()
    except KeyboardInterrupt:
        return 130
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
