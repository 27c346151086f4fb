"""Takes traces and metrics and forgets them: `python -m bench.otlp_sink PORT`.

Ends when its standard input does, and then says how many requests have come.
"""

import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.messages import HOST
from bench.process import wait_for_release


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # exporters keep their connection
    requests = 0

    def do_POST(self) -> None:
        """Read it whole, as a collector does, and accept it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        _Sink.requests += 1
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def main() -> None:
    """Serve until released."""
    server = ThreadingHTTPServer((HOST, int(sys.argv[1])), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wait_for_release()
    server.shutdown()
    print(_Sink.requests)


if __name__ == "__main__":
    main()
