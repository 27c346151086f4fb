"""Health and metrics over HTTP: /health, /health/ready and Prometheus' /metrics."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from zenthos_core.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST: Final = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes every few seconds are no news."""


def make_app(is_ready: Callable[[], bool]) -> "WSGIApplication":
    """The WSGI application."""
    prometheus = make_wsgi_app()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                page: Iterable[bytes] = prometheus(environ, start_response)
                return page
            case "/health":
                status, body = "200 OK", b'{"status":"ok"}'
            case "/health/ready" if is_ready():
                status, body = "200 OK", b'{"status":"ready"}'
            case "/health/ready":
                status, body = "503 Service Unavailable", b'{"status":"connecting"}'
            case _:
                status, body = "404 Not Found", b'{"status":"not found"}'
        start_response(status, [("Content-Type", "application/json")])
        return [body]

    return app


@contextmanager
def serve(port: int, is_ready: Callable[[], bool]) -> Iterator[None]:
    """Serve on loopback while the block runs.

    Raises:
        ConfigurationError: the port is taken.
    """
    try:
        server = make_server(HOST, port, make_app(is_ready), _Server, _QuietHandler)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} for metrics: {error.strerror}; set ZENTHOS_INGEST_METRICS_PORT"
        ) from error
    with server:
        threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        yield
        server.shutdown()
