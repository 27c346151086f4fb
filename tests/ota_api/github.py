"""GitHub, as far as a webhook sees it: deliveries with their HMAC, and a server with the assets."""

import hashlib
import hmac
import json
import threading
import time
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.ota_api.conftest import HOOK_SECRET, Ota

REPOSITORY = "acme/sensors"


@dataclass
class AssetServer:
    """Serves bytes by path; a number instead is a status, a text a redirect."""

    origin: str
    files: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None

    def add(self, release: dict[str, Any], stem: str, suffix: str = ".tflite") -> list[str]:
        """The three assets of a publish body; gives their names."""
        manifest, signature = b64decode(release["manifest"]), release["signature"].encode()
        files = {
            f"{stem}.manifest.json": manifest,
            f"{stem}.sig": signature + b"\n",
            f"{stem}{suffix}": b64decode(release["binary_data"]),
        }
        self.files.update({f"/{name}": content for name, content in files.items()})
        return list(files)


@contextmanager
def serving_assets() -> Iterator[AssetServer]:
    """A server of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            server.before(self.path)
            found = server.files.get(self.path, 404)
            body = found if isinstance(found, bytes) else b""
            self.send_response(200 if body else 302 if isinstance(found, str) else int(found))
            if isinstance(found, str):
                self.send_header("Location", found)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = AssetServer(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def event(origin: str, names: list[str], tag: str = "v1", action: str = "published") -> bytes:
    """The body that announces a release with these assets."""
    assets = [
        {"name": n, "url": f"{origin}/api/{n}", "browser_download_url": f"{origin}/{n}", "size": 1}
        for n in names
    ]
    release = {"tag_name": tag, "assets": assets, "body": "notes", "author": {"login": "x"}}
    return json.dumps(
        {"action": action, "release": release, "repository": {"full_name": REPOSITORY, "id": 1}}
    ).encode()


def signed(body: bytes, secret: str = HOOK_SECRET) -> str:
    """X-Hub-Signature-256."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def deliver(
    ota: Ota,
    body: bytes,
    *,
    delivery: str | None = None,
    event_name: str = "release",
    signature: str | None = None,
) -> httpx.Response:
    """A delivery, as GitHub sends it."""
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event_name,
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-Hub-Signature-256": signed(body) if signature is None else signature,
    }
    return ota.http.post("/hooks/github-release", content=body, headers=headers)


def outcome(ota: Ota, delivery_id: str) -> dict[str, Any]:
    """What became of a delivery, once it has."""
    deadline = time.monotonic() + 30
    while True:
        items = ota.send("GET", "/hooks/deliveries").json()["items"]
        found: dict[str, Any] = next(i for i in items if i["id"] == delivery_id)
        if found["state"] != "pending":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
