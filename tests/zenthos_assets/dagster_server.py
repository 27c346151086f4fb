"""A Dagster webserver and daemon on the project's own dagster.yaml."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.conftest import ROOT
from tests.servers import find_free_port

START_TIMEOUT_S = 240
T = TypeVar("T")


@contextmanager
def running_dagster(
    folder: Path, environment: Mapping[str, str], location: list[str]
) -> Iterator[str]:
    """URL of a webserver that is up; `location` names the code, as `-w workspace.yaml` or `-m`."""
    (folder / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    port = find_free_port()
    programs = [
        ["dagster-webserver", *location, "-h", "127.0.0.1", "-p", str(port)],
        ["dagster-daemon", "run", *location],
    ]
    bin_folder = Path(sys.executable).parent
    with (folder / "log").open("wb") as log:
        running = [
            subprocess.Popen(
                [bin_folder / name, *arguments],
                cwd=ROOT,
                env={**os.environ, "DAGSTER_HOME": str(folder), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for name, *arguments in programs
        ]
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _is_up(url), START_TIMEOUT_S, "the Dagster webserver is up")
        yield url
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(120)
            with suppress(ProcessLookupError):  # their code servers, should one be left
                os.killpg(process.pid, signal.SIGKILL)


def ask(dagster_url: str, query: str, **variables: object) -> dict[str, Any]:
    """The data of a GraphQL answer."""
    body = {"query": query, "variables": variables}
    answer = httpx.post(f"{dagster_url}/graphql", json=body, timeout=60).json()
    data: dict[str, Any] = answer["data"]
    return data


def eventually(look: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """The first answer that is true; fails the test where there is none in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    pytest.fail(f"not within {timeout_s:.0f} s: {what}")


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info").is_success
    except httpx.TransportError:
        return False
