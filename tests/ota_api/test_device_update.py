"""A simulated device fetches a model from the real server, and from servers that lie."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota
from tests.ota_api.releases import BINARY, DAY_S
from zenthos_cli import device
from zenthos_cli.device import FetchedRelease, UpdateError, fetch_model
from zenthos_core.signing import generate_key, public_half, read_key
from zenthos_core.tokens import Role

NEWER = b"newer weights " * 300


@pytest.fixture
def field(ota: Ota) -> Ota:
    """A server with a registered device and a model for it."""
    ota.register()
    ota.publish(ota.signer.model())
    return ota


def fetch(ota: Ota, folder: Path, **changes: Any) -> FetchedRelease:
    options = {
        "ota_url": ota.settings.ota_url,
        "token": ota.token(Role.DEVICE, DEVICE_ID),
        "device_id": DEVICE_ID,
        "device_model": DEVICE_MODEL,
        "name": "irrigation",
        "root_public_key": read_key(ota.settings.root_public_key_file),
        "folder": folder,
        **changes,
    }
    return fetch_model(**options)


def test_fetches_verifies_and_keeps(field: Ota, tmp_path: Path) -> None:
    fetched = fetch(field, tmp_path / "flash")
    assert fetched.path.read_bytes() == BINARY
    assert (fetched.name, fetched.release_counter) == ("irrigation", 1)
    assert fetched.sha256 == hashlib.sha256(BINARY).hexdigest()
    assert fetched.requests == -(-len(BINARY) // device.CHUNK_BYTES)
    assert [path.name for path in (tmp_path / "flash").iterdir()] == ["irrigation.tflite"]


def test_takes_the_newer_one_only(field: Ota, tmp_path: Path) -> None:
    first = fetch(field, tmp_path)
    with pytest.raises(UpdateError, match="counter_not_newer") as caught:
        fetch(field, tmp_path, newest_counter=first.release_counter)
    assert caught.value.stage == "manifest"
    field.publish(field.signer.model(NEWER, release_counter=2))
    second = fetch(field, tmp_path, newest_counter=first.release_counter)
    assert second.path.read_bytes() == NEWER


def test_continues_an_interrupted_download(field: Ota, tmp_path: Path) -> None:
    whole = fetch(field, tmp_path)
    whole.path.unlink()
    partial = tmp_path / f".{whole.version}.{whole.sha256[:16]}.partial"
    partial.write_bytes(BINARY[:5000])
    again = fetch(field, tmp_path)
    assert again.path.read_bytes() == BINARY
    assert again.requests == whole.requests - 1
    assert not partial.exists()


def test_starts_anew_after_a_partial_download_that_was_damaged(field: Ota, tmp_path: Path) -> None:
    whole = fetch(field, tmp_path)
    partial = tmp_path / f".{whole.version}.{whole.sha256[:16]}.partial"
    partial.write_bytes(b"damaged" * 100)
    with pytest.raises(UpdateError, match="wrong_sha256"):
        fetch(field, tmp_path)
    assert whole.path.read_bytes() == BINARY  # the old one is still in place
    assert not partial.exists()
    assert fetch(field, tmp_path).sha256 == whole.sha256


def test_trusts_no_other_root(field: Ota, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="not_signed_by_root") as caught:
        fetch(field, tmp_path, root_public_key=public_half(generate_key()))
    assert caught.value.stage == "keys"
    assert list(tmp_path.glob("*.tflite")) == []


def test_chip_of_another_board(field: Ota, tmp_path: Path) -> None:
    field.publish(field.signer.model(NEWER, release_counter=2, chip="esp32c3"))
    with pytest.raises(UpdateError, match="wrong_chip"):
        fetch(field, tmp_path)


def test_release_that_has_expired_by_the_device_clock(field: Ota, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="expired"):
        fetch(field, tmp_path, clock=lambda: time.time() + 31 * DAY_S)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "frost"}, "404"),
        ({"device_model": "esp32-cam"}, "403"),
        ({"token": "a.b.c"}, "401"),
    ],
)
def test_refusals_of_the_server_are_told(
    field: Ota, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UpdateError, match=words) as caught:
        fetch(field, tmp_path, **changes)
    assert caught.value.stage == "check-in"


def test_server_that_is_away(
    ota: Ota, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "RETRY_WAIT_S", 0.0)
    with pytest.raises(UpdateError, match="is the OTA server running"):
        fetch(ota, tmp_path, ota_url=f"http://127.0.0.1:{free_port}")


Answer = tuple[int, bytes]


@contextmanager
def lying_server(answer: Callable[[str, str | None], Answer]) -> Iterator[str]:
    """An HTTP server that answers a path and Range as it likes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path, self.headers.get("Range"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


LATEST = f"/models/{DEVICE_MODEL}/irrigation/latest"


def is_honest(path: str) -> bool:
    return path == "/keys.json" or path.startswith(LATEST)


def honest(ota: Ota, path: str) -> bytes:
    """What the real server answers to the device at this moment, nonce and all."""
    return ota.send("GET", path, Role.DEVICE).content


@pytest.mark.parametrize(
    ("chunk", "status", "reason"),
    [
        (b"x" * 3250, 206, "wrong_sha256"),
        (b"x" * 20_000, 206, "too_long"),
        (b"x" * 200_000, 206, "more than 65536 bytes"),
        (b"", 206, "empty range"),
        (BINARY, 200, "no longer has the file"),
        (b"gone", 404, "404"),
    ],
)
def test_server_that_sends_other_bytes(
    field: Ota, tmp_path: Path, chunk: bytes, status: int, reason: str
) -> None:
    def answer(path: str, asked: str | None) -> Answer:
        return (200, honest(field, path)) if is_honest(path) else (status, chunk)

    with lying_server(answer) as url, pytest.raises(UpdateError, match=reason):
        fetch(field, tmp_path, ota_url=url)
    assert list(tmp_path.glob("*.tflite")) == []


@pytest.mark.parametrize(
    "offer",
    [
        b"",
        b"[]",
        b"not json",
        b"{}",
        json.dumps({"manifest": "%%", "signature": ""}).encode(),
        json.dumps({"manifest": b64encode(b"{}").decode(), "signature": "AAAA"}).encode(),
        json.dumps({"manifest": 5, "signature": None}).encode(),
        b"[" * 50_000,
    ],
    ids=lambda offer: repr(offer[:20]),
)
def test_server_that_offers_nonsense(field: Ota, tmp_path: Path, offer: bytes) -> None:
    def answer(path: str, asked: str | None) -> Answer:
        return 200, honest(field, path) if path == "/keys.json" else offer

    with lying_server(answer) as url, pytest.raises(UpdateError):
        fetch(field, tmp_path, ota_url=url)


def test_answer_kept_from_another_time_is_refused(field: Ota, tmp_path: Path) -> None:
    """Indefinite freeze: an older answer, rightly signed, over another nonce."""
    kept = honest(field, f"{LATEST}?nonce=nonce-of-another-time")
    field.publish(field.signer.model(NEWER, release_counter=2))

    def answer(path: str, asked: str | None) -> Answer:
        return 200, kept if path.startswith(LATEST) else honest(field, path)

    with lying_server(answer) as url, pytest.raises(UpdateError, match="other_nonce") as caught:
        fetch(field, tmp_path, ota_url=url)
    assert caught.value.stage == "check-in"


def test_release_that_was_not_offered_is_refused(field: Ota, tmp_path: Path) -> None:
    """Mix and match: the manifest of another answer beside the signature of this one."""
    older = json.loads(honest(field, LATEST))
    field.publish(field.signer.model(NEWER, release_counter=2))

    def answer(path: str, asked: str | None) -> Answer:
        content = json.loads(honest(field, path))
        if path.startswith(LATEST):
            content |= {name: older[name] for name in ("manifest", "signature")}
        return 200, json.dumps(content).encode()

    with lying_server(answer) as url, pytest.raises(UpdateError, match="other_manifest"):
        fetch(field, tmp_path, ota_url=url)


def test_that_there_is_nothing_is_signed_too(ota: Ota, tmp_path: Path) -> None:
    ota.register()
    ota.publish({**ota.signer.model(), "rollout_percentage": 0})
    with pytest.raises(UpdateError, match="no_rollout"):
        fetch(ota, tmp_path)
    denied = json.dumps({"reason": "withdrawn", "detail": "go away"}).encode()

    def answer(path: str, asked: str | None) -> Answer:
        return (403, denied) if path.startswith(LATEST) else (200, honest(ota, path))

    with lying_server(answer) as url, pytest.raises(UpdateError, match="answered with 403"):
        fetch(ota, tmp_path, ota_url=url)


CONVERSION = """
import json, sys
from pathlib import Path
import keras, numpy as np
from ml.convert import to_int8
from ml.quantised import tensor_quantisation
keras.utils.set_random_seed(1)
model = keras.Sequential([
    keras.Input((7,)), keras.layers.Normalization(mean=0.0, variance=1.0),
    keras.layers.Dense(4, activation="relu"), keras.layers.Dense(2, activation="softmax"),
])
rows = np.random.default_rng(1).normal(size=(200, 7)).astype(np.float32)
tflite = to_int8(model, rows)
Path(sys.argv[1]).write_bytes(tflite)
probabilities = model.predict(rows[:1], verbose=0)[0].tolist()
print(json.dumps([tensor_quantisation(tflite), rows[0].tolist(), probabilities]))
"""


def test_runs_the_model_it_fetched(ota: Ota, tmp_path: Path) -> None:
    converted = tmp_path / "model.tflite"
    done = subprocess.run(
        [sys.executable, "-c", CONVERSION, str(converted)],
        capture_output=True,
        text=True,
        check=True,
    )
    scales, features, expected = json.loads(done.stdout.splitlines()[-1])
    names = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
    quantization = {
        "feature_mean": [0.0] * 7,
        "feature_deviation": [1.0] * 7,
        **dict(zip(names, scales, strict=True)),
    }
    ota.register()
    ota.publish(ota.signer.model(converted.read_bytes(), quantization=quantization))
    result = device.run_inference(fetch(ota, tmp_path / "flash"), features)
    assert list(result) == ["irrigate", "skip"]
    assert result["irrigate"] == pytest.approx(expected[0], abs=0.05)


def test_model_without_its_quantisation_is_not_run(field: Ota, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="quantization"):
        device.run_inference(fetch(field, tmp_path), [0.0] * 7)
