"""When a service counts as ready."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
import pytest

from tests.servers import PostgresServer
from zenthos_cli.stack.probes import DaemonHeartbeat, http_ok, port_open


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def health_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_http(health_port: int, free_port: int) -> None:
    assert http_ok(f"http://127.0.0.1:{health_port}/ready")()
    assert not http_ok(f"http://127.0.0.1:{health_port}/starting")()
    assert not http_ok(f"http://127.0.0.1:{free_port}/ready")()


def test_port(health_port: int, free_port: int) -> None:
    assert port_open(health_port)()
    assert not port_open(free_port)()


def test_a_daemon_is_ready_with_a_heartbeat_newer_than_those_before(
    postgres: PostgresServer,
) -> None:
    postgres.cluster.create_databases(["heartbeats"])
    url = postgres.url("heartbeats")
    heartbeat = DaemonHeartbeat(url)
    heartbeat.remember()
    assert not heartbeat.beats()  # not even the table is there
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE daemon_heartbeats (timestamp timestamp)")
        connection.execute("INSERT INTO daemon_heartbeats VALUES ('2026-01-01')")
    assert heartbeat.beats()
    heartbeat.remember()
    assert not heartbeat.beats()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO daemon_heartbeats VALUES ('2026-01-02')")
    assert heartbeat.beats()
