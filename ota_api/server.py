"""How the application is served: uvicorn, and what its routes may know of a connection."""

import resource
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from ota_api.delivery.response import CONNECTION
from ota_api.patience import KEEP_ALIVE_S, PatientProtocol
from zenthos_core.settings import Settings

GRACE_S: Final = 10
"""Longest wait at a stop for requests under way; a device resumes its download elsewhere."""


class OpenProtocol(PatientProtocol):
    """Hands the transport on: whether a client is still there, and an end to one that dawdles."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {CONNECTION: self.transport}


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Of the server that `python -m ota_api` runs."""
    return uvicorn.Config(
        app,
        host=settings.ota_host,
        port=settings.ota_port,
        http=OpenProtocol,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        limit_concurrency=settings.ota_max_connections,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def raise_file_limit() -> None:
    """Every connection takes a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
