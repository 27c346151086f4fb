"""Releases on S3: published through the server, downloaded past it."""

import hashlib
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ota_api.health.service import OK
from ota_api.resources import open_resources
from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota, on_s3, running_ota
from tests.ota_api.recorder import Recorder, recording
from tests.ota_api.releases import BINARY
from tests.servers import MotoServer
from zenthos_assets.release.checks import fetch_and_verify
from zenthos_cli.device import CHUNK_BYTES, fetch_model
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.blobs.s3 import Place, S3Store
from zenthos_core.errors import ConfigurationError
from zenthos_core.manifest import SignedManifest, verify_manifest
from zenthos_core.settings import Settings
from zenthos_core.signing import read_key, read_trusted_keys
from zenthos_core.tokens import Role

PATH = "/models/esp32-s3/irrigation/latest"
BINARY_PATH = f"{PATH}?download=true"
ETAG = f'"{hashlib.sha256(BINARY).hexdigest()}"'


def publish(ota: Ota) -> str:
    ota.register()
    answer = ota.publish(ota.signer.model())
    assert answer.status_code == 201, answer.text
    key = ota.rows("SELECT object_key FROM release_targets")[0][0]
    assert store_of(ota.settings).get(lake.FIRMWARE, key) == BINARY
    return str(key)


@pytest.fixture
def outside(s3: MotoServer) -> Iterator[Recorder]:
    """S3 as devices reach it, by another name than the server's."""
    with recording(s3.port) as recorder:
        yield recorder


@pytest.fixture
def inside(s3: MotoServer) -> Iterator[Recorder]:
    """S3 as the server reaches it."""
    with recording(s3.port) as recorder:
        yield recorder


@pytest.fixture
def ota_s3(
    ota_settings: Settings,
    s3: MotoServer,
    s3_place: Place,
    outside: Recorder,
    inside: Recorder,
) -> Iterator[Ota]:
    """A server whose releases are on S3, with a device and a model."""
    ends = {"s3_endpoint_url": inside.url, "s3_public_endpoint_url": outside.url}
    settings = on_s3(ota_settings, s3, s3_place).model_copy(update=ends)
    with running_ota(settings) as ota:
        publish(ota)
        inside.asked.clear()
        yield ota


def test_a_download_is_sent_to_s3_and_never_passes_through(
    ota_s3: Ota, outside: Recorder, inside: Recorder
) -> None:
    for options in (
        {"params": {"download": "true"}},
        {"headers": {"Accept": "application/octet-stream"}},
        {"headers": {"Accept": "application/octet-stream", "Range": "bytes=5-"}},
    ):
        answer = ota_s3.send("GET", PATH, Role.DEVICE, **options)
        assert (answer.status_code, answer.content) == (302, b"")
        assert answer.headers["cache-control"] == "no-store"
        location = answer.headers["location"]
        assert location.startswith(f"{outside.url}/")
        assert parse_qs(urlsplit(location).query)["X-Amz-Expires"] == ["300"]
        assert httpx.get(location, trust_env=False).content == BINARY
        part = httpx.get(location, headers={"Range": "bytes=100-199"}, trust_env=False)
        assert (part.status_code, part.content) == (206, BINARY[100:200])
    head = ota_s3.send("HEAD", BINARY_PATH, Role.DEVICE)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BINARY)))
    assert inside.gets(DEVICE_MODEL) == []


def test_what_needs_no_bytes_is_answered_here(ota_s3: Ota, outside: Recorder) -> None:
    known = ota_s3.send("GET", BINARY_PATH, Role.DEVICE, headers={"If-None-Match": ETAG})
    assert known.status_code == 304
    beyond = {"Range": f"bytes={len(BINARY)}-"}
    assert ota_s3.send("GET", BINARY_PATH, Role.DEVICE, headers=beyond).status_code == 416
    assert ota_s3.http.get(BINARY_PATH).status_code == 401
    assert outside.asked == []
    assert ota_s3.http.get("/health/ready").json()["checks"]["blob_store"] == OK


def test_a_device_follows_without_its_token(ota_s3: Ota, outside: Recorder, tmp_path: Path) -> None:
    fetched = fetch_model(
        ota_s3.settings.ota_url,
        ota_s3.token(Role.DEVICE, DEVICE_ID),
        DEVICE_ID,
        DEVICE_MODEL,
        "irrigation",
        read_key(ota_s3.settings.root_public_key_file),
        tmp_path,
    )
    assert fetched.path.read_bytes() == BINARY
    asked = outside.gets(DEVICE_MODEL)
    assert len(asked) == -(-len(BINARY) // CHUNK_BYTES)
    assert all(a.headers["range"].startswith("bytes=") for a in asked)
    assert not any({"authorization", "if-range"} & a.headers.keys() for a in asked)


def test_the_lineage_follows_without_its_token(ota_s3: Ota, outside: Recorder) -> None:
    settings = ota_s3.settings
    trusted = read_trusted_keys(settings.trusted_keys_file, read_key(settings.root_public_key_file))
    offered = ota_s3.send("GET", PATH).json()
    signed = SignedManifest(b64decode(offered["manifest"]), b64decode(offered["signature"]))
    manifest = verify_manifest(signed, trusted, now=time.time())
    headers = ota_s3.headers(Role.ADMIN)
    with httpx.Client(base_url=settings.ota_url, headers=headers, trust_env=False) as http:
        assert fetch_and_verify(http, manifest, trusted, now=time.time()).passed
    (asked,) = outside.gets(DEVICE_MODEL)
    assert "authorization" not in asked.headers


def test_an_account_signs_for_the_host_that_devices_ask(s3: MotoServer) -> None:
    access = replace(s3.access(), public_endpoint_url="https://files.example.org")
    url = S3Store(Place("", ""), access).presign("b", "m/v1.bin", expires_s=60, filename="v1.bin")
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "files.example.org", "/b/m/v1.bin")
    query = parse_qs(parts.query)
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert query["response-content-disposition"] == ['attachment; filename="v1.bin"']


def test_a_release_that_the_store_has_lost_or_cannot_give(
    ota_settings: Settings, s3: MotoServer, s3_place: Place
) -> None:
    with running_ota(on_s3(ota_settings, s3, s3_place)) as ota:
        key = publish(ota)
        store = store_of(ota.settings)
        assert isinstance(store, S3Store)
        name, _ = store.place.locate(lake.FIRMWARE)
        store._client.delete_object(Bucket=name, Key=key)
        sent = ota.send("GET", BINARY_PATH, Role.DEVICE)
        assert httpx.get(sent.headers["location"], trust_env=False).status_code in {403, 404}
        for left in store.keys(lake.FIRMWARE):
            store._client.delete_object(Bucket=name, Key=left)
        store._client.delete_bucket(Bucket=name)
        refused = ota.publish(ota.signer.model(version="m-20261124-0a1b2c4", release_counter=2))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert "NoSuchBucket" in refused.json()["detail"]
        assert "NoSuchBucket" in ota.http.get("/health/ready").json()["checks"]["blob_store"]


async def test_a_server_without_its_bucket_does_not_start(
    ota_settings: Settings, s3: MotoServer
) -> None:
    settings = on_s3(ota_settings, s3, Place("", "nobody-"))
    with pytest.raises(ConfigurationError, match=r"nobody-.*NoSuchBucket.*: create it"):
        async with open_resources(settings):
            pass
