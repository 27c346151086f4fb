"""What is looked at before anything starts, so that a start does not fail half-way."""

import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from zenthos_cli.stack.plan import Service
from zenthos_core.errors import ConfigurationError

MIN_FREE_BYTES: Final = 1_000_000_000


def check_disk(home: Path) -> None:
    """ConfigurationError where there is too little room for databases, archive and logs."""
    free = shutil.disk_usage(home).free
    if free < MIN_FREE_BYTES:
        raise ConfigurationError(
            f"the disk of {home} is nearly full: {free // 1_000_000} MB are free,"
            f" {MIN_FREE_BYTES // 1_000_000} MB are needed; make room or set ZENTHOS_HOME"
        )


def check_ports(services: Iterable[Service]) -> None:
    """ConfigurationError naming each port that another program has, and how to move ours."""
    busy = [
        f"port {port} ({service.name}) is in use by another program:"
        f" end it, or set another, such as {_another(setting, port)}"
        for service in services
        for setting, port in _ports(service)
        if _in_use(port)
    ]
    if busy:
        raise ConfigurationError("\n".join(busy))


def _ports(service: Service) -> Iterable[tuple[str, int]]:
    """The ports of a service, each with the setting that moves it."""
    if service.port is not None:
        yield service.port_setting, service.port
    yield from service.more_ports.items()


def _another(setting: str, port: int) -> str:
    """What to write into the environment or `.env`."""
    before = "http://127.0.0.1:" if setting.endswith("_URL") else ""
    return f"{setting}={before}{port + 1}"


def _in_use(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False
