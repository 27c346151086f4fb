"""A simulated device that updates itself: fetches, verifies and keeps a model, as a real one does.

What is accepted is decided by the device's own code, firmware/device/ota.py; this adds HTTP, the
disk and the interpreter.
"""

import json
import os
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from firmware.device import ota
from zenthos_core.errors import ZenthosError
from zenthos_core.signing import verifies

CHUNK_BYTES: Final = 4096
"""One flash sector."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Metadata holds a manifest of at most 4 KiB, in base64, and release notes."""

ANSWER_WITHIN_S: Final = 30.0
SPACE_BYTES: Final = 1024 * 1024
TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 5
RETRY_WAIT_S: Final = 0.2

CHIPS: Final = {
    "esp32-s3": "esp32s3",
    "esp32-cam": "esp32",
    "esp32-oled": "esp32",
}


class UpdateError(ZenthosError):
    """The device has not taken the release; `stage` says where: check-in, manifest, download …"""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


@dataclass(frozen=True)
class FetchedRelease:
    """A release that the device has verified and written to its flash."""

    device_id: str
    name: str
    version: str
    release_counter: int
    sha256: str
    size_bytes: int
    key_id: str
    path: Path
    manifest: dict[str, Any]
    metrics: dict[str, float]
    """Scores of the model, from the signed lineage."""
    requests: int
    """Range requests that the download took."""


def fetch_model(  # noqa: PLR0917 - a device's whole configuration
    ota_url: str,
    token: str,
    device_id: str,
    device_model: str,
    name: str,
    root_public_key: bytes,
    folder: Path,
    newest_counter: int = 0,
    *,
    clock: Callable[[], float] = time.time,
) -> FetchedRelease:
    """Fetch the newest model as one device and write it to `folder`.

    A partial download left in the folder by an earlier call is continued. `newest_counter` is the
    release_counter of the model that the device runs.

    Raises:
        UpdateError: with the stage and the reason; nothing in the folder is replaced then.
    """
    headers = {"Authorization": f"Bearer {token}", "User-Agent": f"zenthos-device/{device_id}"}
    with httpx.Client(
        base_url=ota_url, headers=headers, timeout=TIMEOUT_S, trust_env=False
    ) as http:
        keys = _fetch_keys(http, root_public_key)
        offer = _get_json(http, f"/models/{device_model}/{name}/latest")
        device = _describe_device(device_model, name, newest_counter)
        manifest = _verify_offer(offer, keys, device, int(clock()))
        url = f"/models/{device_model}/{name}/{manifest['version']}?download=true"
        path, requests = _download(http, url, manifest, folder)
    return FetchedRelease(
        device_id=device_id,
        name=manifest["name"],
        version=manifest["version"],
        release_counter=manifest["release_counter"],
        sha256=manifest["sha256"],
        size_bytes=manifest["size"],
        key_id=manifest["key_id"],
        path=path,
        manifest=manifest,
        metrics=manifest.get("lineage", {}).get("metrics", {}),
        requests=requests,
    )


def run_inference(release: FetchedRelease, features: Sequence[float]) -> dict[str, float]:
    """Probability of each class for one vector of raw features, by the model as it was fetched.

    Raises:
        ImportError: where ai-edge-litert does not run on this machine.
        UpdateError: where the manifest does not say how the model is quantised.
    """
    import numpy as np

    from ml.quantised import run_int8
    from ml.reports import Quantisation

    try:
        quantisation = msgspec.convert(release.manifest["quantization"], Quantisation)
    except msgspec.ValidationError as error:
        raise UpdateError("inference", f"quantization in the manifest: {error}") from None
    rows = np.asarray([features], dtype=np.float32)
    probabilities = run_int8(release.path.read_bytes(), quantisation, rows)[0]
    return dict(zip(release.manifest["output_classes"], map(float, probabilities), strict=True))


def _describe_device(device_model: str, name: str, newest_counter: int) -> dict[str, Any]:
    return {
        "device_model": device_model,
        "chip": CHIPS.get(device_model, device_model),
        "kinds": ["model"],
        "name": name,
        "newest_counter": newest_counter,
        "space_bytes": SPACE_BYTES,
        "firmware_version": None,
    }


def _fetch_keys(http: httpx.Client, root_public_key: bytes) -> dict[str, Any]:
    answer = _get_json(http, "/keys.json")
    document, signature = _decode(answer, "keys"), _decode(answer, "signature")
    try:
        return ota.verify_keys(document, signature, root_public_key, verifies)
    except ota.Refused as refusal:
        raise UpdateError(refusal.stage, _explain(refusal)) from refusal


def _verify_offer(
    offer: dict[str, Any], keys: dict[str, Any], device: dict[str, Any], now: int
) -> dict[str, Any]:
    manifest, signature = _decode(offer, "manifest"), _decode(offer, "signature")
    try:
        return ota.verify_release(manifest, signature, keys, device, verifies, now)
    except ota.Refused as refusal:
        raise UpdateError(refusal.stage, _explain(refusal)) from refusal


def _download(
    http: httpx.Client, url: str, manifest: dict[str, Any], folder: Path
) -> tuple[Path, int]:
    """Range by Range into a partial file; the whole takes its name only once verified."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{manifest['name']}.tflite"
    partial = folder / f".{manifest['version']}.{manifest['sha256'][:16]}.partial"
    download = ota.Download(manifest)
    requests = 0
    try:
        with partial.open("a+b") as file:
            file.seek(0)
            for kept in iter(lambda: file.read(CHUNK_BYTES), b""):
                download.update(kept)
            for chunk in _fetch_rest(http, url, manifest, download.received):
                download.update(chunk)
                file.write(chunk)
                requests += 1
            file.flush()
            os.fsync(file.fileno())
        download.finish()
    except ota.Refused as refusal:
        partial.unlink(missing_ok=True)
        raise UpdateError(refusal.stage, _explain(refusal)) from refusal
    partial.replace(target)
    return target, requests


def _fetch_rest(
    http: httpx.Client, url: str, manifest: dict[str, Any], have: int
) -> Iterator[bytes]:
    """The bytes from `have` on, one Range at a time, all of the one file that was signed."""
    size, etag = manifest["size"], f'"{manifest["sha256"]}"'
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as elsewhere:
        source = _Source(http, elsewhere, url, etag)
        while have < size:
            chunk = source.read(have, min(have + CHUNK_BYTES, size) - 1)
            if not chunk:
                raise UpdateError("download", "the server sent an empty range")
            have += len(chunk)
            yield chunk


class _Source:
    """The server, or for a while the store to which it sends the device.

    The store is asked by a client that has no token, and without If-Range: its ETag is another, and
    the signed SHA-256 decides in the end.
    """

    def __init__(self, http: httpx.Client, elsewhere: httpx.Client, url: str, etag: str) -> None:
        self._http = http
        self._elsewhere = elsewhere
        self._url = url
        self._etag = etag
        self._location = ""

    def read(self, first: int, last: int) -> bytes:
        """Bytes `first` to `last`."""
        asked = {"Range": f"bytes={first}-{last}"}
        if self._location:
            answer = _ask(self._elsewhere, self._location, asked)
            if answer.status == httpx.codes.PARTIAL_CONTENT:
                return answer.body
        answer = _ask(self._http, self._url, {**asked, "If-Range": self._etag})
        if answer.location:
            self._location = answer.location  # the URL before it, if any, has expired
            answer = _ask(self._elsewhere, self._location, asked)
        if answer.status == httpx.codes.OK:
            raise UpdateError("download", "the server no longer has the file that was signed")
        if answer.status != httpx.codes.PARTIAL_CONTENT:
            raise UpdateError("download", answer.problem(self._url))
        return answer.body


def _get_json(http: httpx.Client, path: str) -> dict[str, Any]:
    try:
        content = json.loads(_get(http, path))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UpdateError("check-in", f"{path} was not answered with a JSON object")
    return content


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    location: str = ""

    def problem(self, path: str) -> str:
        """What went wrong, in the server's words."""
        text = self.body[:300].decode(errors="replace")
        return f"{path.partition('?')[0]} was answered with {self.status}: {text}"


def _get(http: httpx.Client, path: str) -> bytes:
    answer = _ask(http, path, {})
    if not httpx.codes.is_success(answer.status):
        raise UpdateError("check-in", answer.problem(path))
    return answer.body


def _ask(http: httpx.Client, path: str, headers: dict[str, str]) -> _Answer:
    """The answer; tries again while the network or the server is away."""
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(RETRY_WAIT_S * 2**attempt)
        try:
            with http.stream("GET", path, headers=headers) as answer:
                body = _read_bounded(answer)
        except httpx.TransportError as error:
            host = http.base_url.join(path).netloc.decode()
            problem = f"{host} cannot be reached ({error}): is the OTA server running?"
            continue
        location = answer.headers.get("location", "") if answer.has_redirect_location else ""
        found = _Answer(answer.status_code, body, location)
        if not answer.is_server_error:
            return found
        problem = found.problem(path)
    raise UpdateError("check-in", problem)


def _read_bounded(answer: httpx.Response) -> bytes:
    """The body, unless it is larger or slower than any honest one."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    body = b""
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise UpdateError("download", f"more than {MAX_ANSWER_BYTES} bytes in one answer")
        if time.monotonic() > deadline:
            raise UpdateError("download", f"an answer took longer than {ANSWER_WITHIN_S:g} s")
    return body


def _decode(answer: dict[str, Any], field: str) -> bytes:
    try:
        return b64decode(answer[field], validate=True)
    except (KeyError, TypeError, ValueError):
        raise UpdateError("check-in", f"the answer has no base64 in {field!r}") from None


def _explain(refusal: ota.Refused) -> str:
    return f"{refusal.reason} ({refusal.detail})" if refusal.detail else refusal.reason
