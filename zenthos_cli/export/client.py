"""An export as it comes over HTTP, and the file it becomes: whole, or not at all."""

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from zenthos_cli.api import explain
from zenthos_core.errors import ZenthosError

CONNECT_TIMEOUT_S: Final = 10.0
SILENCE_S: Final = 320.0
"""The server may sort a large range before it sends the first row."""
STDOUT: Final = Path("-")


@dataclass(frozen=True)
class Request:
    """What is asked for; all days and devices where none are named."""

    table: str
    format: str
    first: date | None = None
    last: date | None = None
    devices: Sequence[str] = field(default=())

    @property
    def query(self) -> dict[str, str | list[str]]:
        """As the route takes it."""
        values: dict[str, Any] = {
            "format": self.format,
            "from": self.first and str(self.first),
            "to": self.last and str(self.last),
            "device": list(self.devices),
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class ExportClient:
    """The OTA server, as the bearer of a token sees it."""

    url: str
    token: str

    def tables(self) -> list[dict[str, Any]]:
        """The tables that may be exported."""
        with self._get("/export", {}) as answer:
            answer.read()
            items: list[dict[str, Any]] = answer.json()["items"]
        return items

    @contextmanager
    def stream(self, request: Request) -> Iterator[Iterator[bytes]]:
        """The bytes of an export as they come.

        Raises:
            ZenthosError: where the server refuses, or is lost before the end.
        """
        with self._get(f"/export/{request.table}", request.query) as answer:
            yield answer.iter_bytes()

    @contextmanager
    def _get(self, path: str, query: dict[str, Any]) -> Iterator[httpx.Response]:
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(CONNECT_TIMEOUT_S, read=SILENCE_S)
        try:
            with (
                httpx.Client(base_url=self.url, headers=headers, timeout=timeout) as http,
                http.stream("GET", path, params=query) as answer,
            ):
                if answer.is_error:
                    answer.read()
                    raise ZenthosError(explain(answer))
                yield answer
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ZenthosError(
                f"{self.url} cannot be reached ({error}): is the stack up, ZENTHOS_OTA_URL right?"
            ) from None
        except httpx.TransportError as error:
            raise ZenthosError(
                f"{self.url} was lost in the midst ({error}): nothing was written, run it again"
            ) from None


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name once it is complete and on disk; `-` is standard output."""
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ZenthosError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
