"""The OTA server as a process of its own, on a Postgres of its own, with devices and releases."""

import hashlib
import os
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psycopg

from bench.process import BenchError
from bench.servers import Server, free_port, running_postgres
from zenthos_cli.stack.keys import make_keys
from zenthos_cli.stack.probes import http_ok
from zenthos_core import tokens
from zenthos_core.manifest import Manifest, sign_manifest
from zenthos_core.signing import key_id, public_half, read_key
from zenthos_core.tokens import Role

DEVICE_MODEL: Final = "esp32-s3"
MODEL_NAME: Final = "irrigation"
DAY_S: Final = 86_400
_DEVICES: Final = """
WITH farm AS (INSERT INTO farms (name) VALUES ('bench') RETURNING id)
INSERT INTO devices (id, farm_id, device_model, device_type)
SELECT 'bench-' || lpad(number::text, 5, '0'), farm.id, %s, 'soil'
FROM farm, generate_series(0, %s - 1) number
"""


@dataclass(frozen=True)
class OtaServer:
    """What runs, and who may ask it."""

    server: Server
    port: int
    keys: Path
    database_url: str

    def device_token(self, number: int) -> str:
        """Of one of its devices."""
        return self._token(f"bench-{number:05}", Role.DEVICE, "read")

    def publish(
        self, number: int, binary: bytes, *, name: str | None = None, percentage: int = 100
    ) -> str:
        """Publish a model for that share of the devices; gives the path at which its binary is."""
        private = read_key(self.keys / "model.key")
        now = int(time.time())
        sha256 = hashlib.sha256(binary).hexdigest()
        manifest = Manifest(
            spec_version=1,
            kind="model",
            name=name or f"{MODEL_NAME}-{number}",
            version=f"m-20261123-{sha256[:7]}",
            device_models=[DEVICE_MODEL],
            chip="esp32s3",
            release_counter=number,
            size=len(binary),
            sha256=sha256,
            created=now - 10,
            expires=now + DAY_S,
            key_id=key_id(public_half(private)),
            input_shape=[1, 7],
            output_classes=["irrigate", "skip"],
            quantization={"input": [0.1, 0]},
        )
        signed = sign_manifest(manifest, private)
        body = {
            "manifest": b64encode(signed.manifest).decode(),
            "signature": b64encode(signed.signature).decode(),
            "binary_data": b64encode(binary).decode(),
            "rollout_percentage": percentage,
        }
        headers = {"Authorization": f"Bearer {self._token('bench', Role.ADMIN, 'publish')}"}
        url = f"http://127.0.0.1:{self.port}/models/publish"
        answer = httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)
        if answer.is_error:
            raise BenchError(f"the release was refused: {answer.text}")
        return f"/models/{DEVICE_MODEL}/{manifest.name}/{manifest.version}?download=true"

    def _token(self, subject: str, role: Role, scope: str) -> str:
        private = (self.keys / "token.pem").read_bytes()
        now = time.time()
        return tokens.issue(private, subject, role, now=now, valid_s=DAY_S, scopes=[scope])


@contextmanager
def running_ota(
    folder: Path, devices: int, environment: Mapping[str, str] | None = None
) -> Iterator[OtaServer]:
    """Postgres and `python -m ota_api` in a folder, with `devices` registered; gone at the end."""
    keys, port = folder / "keys", free_port()
    make_keys(keys, now=time.time())
    with running_postgres(folder) as (_, url):
        server = _server(folder, url, keys, port, environment or {})
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_DEVICES, [DEVICE_MODEL, devices])
            connection.execute("ANALYZE devices")
        try:
            server.start()
            yield OtaServer(server, port, keys, url)
        finally:
            server.stop()


def _server(
    folder: Path, url: str, keys: Path, port: int, environment: Mapping[str, str]
) -> Server:
    variables = {
        "ZENTHOS_DATABASE_URL": url,
        "ZENTHOS_BLOB_URL": (folder / "blobs").as_uri(),
        "ZENTHOS_OTA_PORT": str(port),
        "ZENTHOS_OTA_URL": f"http://127.0.0.1:{port}",
        "ZENTHOS_TOKEN_PRIVATE_KEY_FILE": str(keys / "token.pem"),
        "ZENTHOS_TOKEN_PUBLIC_KEY_FILE": str(keys / "token.pub.pem"),
        "ZENTHOS_ROOT_PUBLIC_KEY_FILE": str(keys / "root.pub"),
        "ZENTHOS_TRUSTED_KEYS_FILE": str(keys / "keys.json"),
        "ZENTHOS_ONLINE_PRIVATE_KEY_FILE": str(keys / "online.key"),
        "ZENTHOS_LOG_LEVEL": "WARNING",
    }
    return Server(
        "ota_api",
        [sys.executable, "-m", "ota_api"],
        folder,
        is_ready=http_ok(f"http://127.0.0.1:{port}/health/ready"),
        stop_signal=signal.SIGTERM,
        environment={**os.environ, **variables, **environment},
    )
