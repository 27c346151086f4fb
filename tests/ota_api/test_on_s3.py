"""Releases on S3: published, read back, and downloaded in part as from a folder."""

import hashlib

import pytest

from ota_api.health.service import OK
from ota_api.resources import open_resources
from tests.ota_api.conftest import Ota, on_s3, running_ota
from tests.ota_api.releases import BINARY
from tests.servers import MotoServer
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.blobs.s3 import Place
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

PATH = "/models/esp32-s3/irrigation/latest?download=true"


def publish(ota: Ota) -> str:
    ota.register()
    answer = ota.publish(ota.signer.model())
    assert answer.status_code == 201, answer.text
    key = ota.rows("SELECT object_key FROM release_targets")[0][0]
    assert store_of(ota.settings).get(lake.FIRMWARE, key) == BINARY
    return key


def test_a_download_is_the_same_as_from_a_folder(
    ota_settings: Settings, s3: MotoServer, s3_place: Place
) -> None:
    etag = f'"{hashlib.sha256(BINARY).hexdigest()}"'
    with running_ota(on_s3(ota_settings, s3, s3_place)) as ota:
        publish(ota)
        whole = ota.send("GET", PATH, Role.DEVICE)
        assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, BINARY, etag)
        resumed = {"Range": "bytes=100-199", "If-Range": etag}
        part = ota.send("GET", PATH, Role.DEVICE, headers=resumed)
        assert (part.status_code, part.content) == (206, BINARY[100:200])
        assert ota.http.get("/health/ready").json()["checks"]["blob_store"] == OK


def test_a_release_that_the_store_has_lost_or_cannot_give(
    ota_settings: Settings, s3: MotoServer, s3_place: Place
) -> None:
    with running_ota(on_s3(ota_settings, s3, s3_place)) as ota:
        key = publish(ota)
        store = store_of(ota.settings)
        name, _ = store.place.locate(lake.FIRMWARE)
        store._client.delete_object(Bucket=name, Key=key)
        assert ota.send("GET", PATH, Role.DEVICE).status_code == 500
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
