"""A proxy before an HTTP server that keeps what it was asked."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Recorder:
    """What came, in order."""

    url: str
    asked: list[Asked] = field(default_factory=list)

    def gets(self, part: str) -> list[Asked]:
        """The GETs of paths that hold a word."""
        return [a for a in self.asked if a.method == "GET" and part in a.path.partition("?")[0]]


@contextmanager
def recording(port: int) -> Iterator[Recorder]:
    """Before the server on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorder.asked.append(Asked(self.command, self.path, headers))
            body = self.rfile.read(int(headers.get("content-length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port)
            passed = {name: value for name, value in headers.items() if name != "connection"}
            upstream.request(self.command, self.path, body, passed)
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder = Recorder(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
