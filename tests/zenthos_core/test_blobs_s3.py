"""S3 where it refuses, is away, breaks off in the midst, or changes under a reader."""

import io
import secrets
from pathlib import Path
from typing import BinaryIO, cast

import httpx
import pytest
from pydantic import SecretStr

from tests.ingest.proxy import Proxy
from tests.servers import HOST, MotoServer, find_free_port
from tests.zenthos_core.test_blobs import Breaking
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.blobs.s3 import Place, S3Access, S3Store
from zenthos_core.blobs.s3_reader import BUFFER_BYTES, RangeReader, open_reader
from zenthos_core.errors import BlobNotFoundError, BlobStoreError, ConfigurationError
from zenthos_core.settings import Settings


@pytest.fixture
def store(s3: MotoServer, s3_place: Place) -> S3Store:
    return S3Store(s3_place, s3.access())


def test_settings_name_the_store(s3: MotoServer, s3_place: Place) -> None:
    settings = Settings(
        blob_url=f"s3://?prefix={s3_place.prefix}",
        s3_endpoint_url=s3.url,
        s3_access_key_id="test",
        s3_secret_access_key=SecretStr("test"),
    )
    store_of(settings).put(lake.GOLD, "x", b"1")
    assert S3Store(s3_place, s3.access()).get(lake.GOLD, "x") == b"1"
    with pytest.raises(ConfigurationError, match="ZENTHOS_S3_SECRET_ACCESS_KEY"):
        store_of(settings.model_copy(update={"s3_secret_access_key": SecretStr("")}))


def test_buckets_are_created_once(s3: MotoServer, store: S3Store) -> None:
    store.put(lake.GOLD, "x", b"1")
    store.create_buckets(lake.BUCKETS)
    assert store.get(lake.GOLD, "x") == b"1"
    virginia = S3Access(s3.url, "us-east-1", "test", SecretStr("test"))
    S3Store(Place(f"b{secrets.token_hex(4)}", ""), virginia).create_buckets(lake.BUCKETS)


def test_listing_goes_on_past_a_page(store: S3Store) -> None:
    names = [f"{n:04}" for n in range(1_005)]
    for name in names:
        store.put(lake.GOLD, f"t/{name}", b"")
    assert list(store.keys(lake.GOLD, "t/")) == [f"t/{name}" for name in names]


def test_an_upload_that_fails_leaves_no_parts(s3: MotoServer) -> None:
    place = Place(f"b{secrets.token_hex(4)}", "")
    store = S3Store(place, s3.access())
    store.create_buckets(lake.BUCKETS)
    client = store._client
    with pytest.raises((OSError, BlobStoreError), match="the disk fails"):
        store.put_file(lake.GOLD, "large", cast("BinaryIO", Breaking()))
    assert "Uploads" not in client.list_multipart_uploads(Bucket=place.bucket)


def test_a_missing_bucket_is_no_missing_object(s3: MotoServer) -> None:
    store = S3Store(Place("", "nobody-"), s3.access())
    uses = (
        lambda: store.put(lake.GOLD, "x", b""),
        lambda: store.get(lake.GOLD, "x"),
        lambda: store.exists(lake.GOLD, "x"),
        lambda: list(store.keys(lake.GOLD)),
    )
    for use in uses:
        with pytest.raises(BlobStoreError, match=r"nobody-zenthos-gold.*NoSuchBucket.*zenthos up"):
            use()


def test_an_unknown_account_is_told_what_to_correct(tmp_path: Path) -> None:
    server = MotoServer(tmp_path)
    server.start()
    try:
        store = S3Store(Place("", ""), server.access())
        store.create_buckets(lake.BUCKETS)
        httpx.post(f"{server.url}/moto-api/reset-auth", content=b"0", trust_env=False)
        with pytest.raises(BlobStoreError, match="ZENTHOS_S3_ACCESS_KEY_ID"):
            store.put(lake.GOLD, "x", b"")
        with pytest.raises(BlobStoreError, match=r"\(403\): .*storage.md"):
            store.create_buckets(lake.BUCKETS)
    finally:
        server.stop()


def test_no_credentials_at_all(
    s3: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BlobStoreError, match="no credentials were found"):
        S3Store(Place("", ""), S3Access(s3.url)).get(lake.GOLD, "x")


def test_a_server_that_is_away(s3_place: Place, s3: MotoServer) -> None:
    store = S3Store(s3_place, s3.access(find_free_port()))
    with pytest.raises(BlobStoreError, match="is it up, and ZENTHOS_S3_ENDPOINT_URL right"):
        store.get(lake.GOLD, "x")


@pytest.mark.fault
def test_an_answer_that_is_cut_off_is_asked_for_again(s3: MotoServer, s3_place: Place) -> None:
    data = secrets.token_bytes(5_000_000)
    with Proxy(HOST, s3.port) as proxy:
        store = S3Store(s3_place, s3.access(proxy.port))
        store.put(lake.GOLD, "x", data)
        proxy.cut_within(to_client_bytes=1_000_000)
        assert store.get(lake.GOLD, "x") == data
        with store.open(lake.GOLD, "x") as file:
            proxy.cut_within(to_client_bytes=1_000_000)
            assert file.read() == data
        proxy.cut_within(to_client_bytes=10)
        store.put(lake.GOLD, "x", data[:1000])
        assert store.get(lake.GOLD, "x") == data[:1000]


def test_an_object_replaced_under_its_reader_is_not_mixed(store: S3Store) -> None:
    store.put(lake.GOLD, "x", bytes(BUFFER_BYTES * 3))
    with store.open(lake.GOLD, "x") as file:
        assert file.read(1) == b"\0"
        store.put(lake.GOLD, "x", b"\1" * BUFFER_BYTES * 3)
        with pytest.raises(BlobStoreError, match="replaced while it was read"):
            file.read()
    with pytest.raises(BlobNotFoundError):
        store.open(lake.GOLD, "y")


def test_small_reads_ask_for_few_ranges() -> None:
    data = secrets.token_bytes(BUFFER_BYTES * 2 + 5)
    asked: list[tuple[int, int]] = []

    def read(first: int, end: int) -> bytes:
        asked.append((first, end))
        return data[first:end]

    file = open_reader(len(data), read)
    assert b"".join(iter(lambda: file.read(4096), b"")) == data
    assert len(asked) == 3
    file.seek(10)
    assert file.read() == data[10:]
    assert len(asked) == 4


def test_a_range_that_comes_short_is_an_error() -> None:
    with pytest.raises(OSError, match="asked for 10 bytes, 3 came"):
        RangeReader(10, lambda first, end: b"abc").readall()
    with pytest.raises(ValueError, match="before the beginning"):
        RangeReader(10, lambda first, end: b"").seek(-11, io.SEEK_END)
