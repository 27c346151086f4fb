"""Object storage: one contract, kept by a folder, by buckets on S3 and by one bucket on S3."""

import io
import random
import secrets
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import MotoServer
from zenthos_core import lake
from zenthos_core.blobs import BlobStore, FolderStore, open_store
from zenthos_core.blobs.s3 import Place, S3Store
from zenthos_core.errors import BlobNotFoundError, BlobStoreError, ConfigurationError


@pytest.fixture(params=["folder", "buckets", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderStore(tmp_path)
    s3: MotoServer = request.getfixturevalue("s3")
    name = f"test-{secrets.token_hex(4)}-"
    place = Place("", name) if request.param == "buckets" else Place(f"{name}all", "a/lake")
    store = S3Store(place, s3.access())
    store.create_buckets(["b", "other"])
    return store


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_put_get_replace(store: BlobStore) -> None:
    store.put("b", "a/b/c.bin", b"one")
    store.put("b", "a/b/c.bin", b"two")
    assert store.get("b", "a/b/c.bin") == b"two"
    with store.open("b", "a/b/c.bin") as file:
        file.seek(1)
        assert file.read() == b"wo"
    assert store.exists("b", "a/b/c.bin")
    assert not store.exists("b", "a/b")
    assert not store.exists("b", "a/b/c")


@pytest.mark.parametrize("size", [0, 5, 20 * 1024 * 1024 + 1])
def test_a_file_from_where_it_stands(store: BlobStore, size: int) -> None:
    content = random.Random(size).randbytes(size)
    store.put("b", "large", b"old")
    file = io.BytesIO(b"not this" + content)
    file.seek(8)
    store.put_file("b", "large", file)
    assert store.get("b", "large") == content
    assert not file.closed


class Breaking(io.RawIOBase):
    """A file whose disk fails after 20 MiB."""

    def __init__(self) -> None:
        self._left = 20 * 1024 * 1024

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise OSError("the disk fails")
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return bytes(size)


def test_a_file_that_fails_leaves_the_old_object(store: BlobStore) -> None:
    store.put("b", "large", b"old")
    with pytest.raises((OSError, BlobStoreError), match="the disk fails"):
        store.put_file("b", "large", cast("BinaryIO", Breaking()))
    assert store.get("b", "large") == b"old"
    assert list(store.keys("b")) == ["large"]


def test_delete(store: BlobStore) -> None:
    store.put("b", "a/b", b"1")
    store.put("b", "a/c", b"2")
    for _ in range(2):
        store.delete("b", "a/b")
        assert list(store.keys("b")) == ["a/c"]
    store.delete("other", "never/there")
    with pytest.raises(BlobNotFoundError):
        store.get("b", "a/b")


def test_missing(store: BlobStore) -> None:
    store.put("b", "folder/file", b"")
    for key in ("nothing", "folder"):
        with pytest.raises(BlobNotFoundError, match=key):
            store.get("b", key)
        with pytest.raises(BlobNotFoundError, match=key):
            store.open("b", key)
        assert not store.exists("b", key)
    assert list(store.keys("other")) == []
    assert list(store.keys("b", "elsewhere/")) == []


def test_keys_are_sorted_and_whole(store: BlobStore) -> None:
    for key in ("t/2", "t/10", "a", "t/1/x", "ü", "t.x"):
        store.put("b", key, b"")
    store.put("other", "t/3", b"")
    assert list(store.keys("b")) == ["a", "t.x", "t/1/x", "t/10", "t/2", "ü"]
    assert list(store.keys("b", "t/1")) == ["t/1/x", "t/10"]
    assert list(store.keys("b", "t/1/")) == ["t/1/x"]
    assert list(store.keys("b", "t")) == ["t.x", "t/1/x", "t/10", "t/2"]


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\\b", "a\0"]
)
def test_keys_that_would_leave_the_bucket(store: BlobStore, key: str) -> None:
    for use in (
        store.get,
        store.open,
        store.exists,
        lambda bucket, key: store.put(bucket, key, b""),
    ):
        with pytest.raises(ValueError, match="object key"):
            use("b", key)


def test_an_open_object_is_a_file(store: BlobStore) -> None:
    data = secrets.token_bytes(700_000)
    store.put("b", "x", data)
    same = io.BytesIO(data)
    with store.open("b", "x") as file:
        assert file.seekable()
        for offset, whence, length in (
            (0, io.SEEK_SET, 10),
            (5, io.SEEK_CUR, 300_000),
            (-8, io.SEEK_END, 4),
            (0, io.SEEK_CUR, 100),
            (10**6, io.SEEK_SET, 5),
            (1, io.SEEK_SET, -1),
        ):
            assert file.seek(offset, whence) == same.seek(offset, whence)
            assert file.read(length) == same.read(length)
            assert file.tell() == same.tell()
        with pytest.raises((ValueError, OSError)):
            file.seek(-1)
    store.put("b", "empty", b"")
    with store.open("b", "empty") as file:
        assert file.read() == b""


def test_readers_see_old_or_new_never_half(store: BlobStore) -> None:
    contents = {bytes([n]) * 300_000 for n in range(4)}
    store.put("b", "x", next(iter(contents)))
    done = threading.Event()

    def write() -> None:
        for content in list(contents) * 5:
            store.put("b", "x", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.get("b", "x") in contents
    writer.join()


@given(st.text(max_size=30))
def test_no_key_leaves_its_bucket(key: str) -> None:
    root = Path("/store")
    try:
        path = FolderStore(root).path("b", key)
    except ValueError:
        return
    assert path.is_relative_to(root / "b")
    assert ".." not in path.parts


def test_a_listing_stays_in_its_folder(folder: FolderStore) -> None:
    folder.put("secret", "x", b"")
    with pytest.raises(ValueError, match="object key"):
        folder.keys("b", "../secret/")


def test_a_half_written_file_is_no_object(folder: FolderStore) -> None:
    folder.put("b", "a", b"")
    (folder.root / "b" / ".a.partial").write_bytes(b"half")
    assert list(folder.keys("b")) == ["a"]


def test_what_a_killed_process_has_left_goes_with_its_object(folder: FolderStore) -> None:
    folder.put("b", "x", b"")
    folder.put("b", "xy", b"")
    for name in (".x.0a1b2c3d", ".xy.0a1b2c3d"):
        (folder.root / "b" / name).write_bytes(b"half")
    folder.delete("b", "x")
    assert {p.name for p in (folder.root / "b").iterdir()} == {"xy", ".xy.0a1b2c3d"}
    folder.delete("b", "xy")
    assert list((folder.root / "b").iterdir()) == []


def test_a_write_that_fails_leaves_the_old_object_and_nothing_else(folder: FolderStore) -> None:
    folder.put("b", "x", b"old")
    with pytest.raises(TypeError):
        folder.put("b", "x", "not bytes")  # type: ignore[arg-type]
    assert folder.get("b", "x") == b"old"
    assert [p.name for p in (folder.root / "b").iterdir()] == ["x"]


def test_url_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    open_store(folder.as_uri()).put("b", "x", b"1")
    assert (folder / "b" / "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://", ("zenthos-gold", "t/x")),
        ("s3://?prefix=acme-", ("acme-zenthos-gold", "t/x")),
        ("s3://data", ("data", "zenthos-gold/t/x")),
        ("s3://data/", ("data", "zenthos-gold/t/x")),
        ("s3://data/farm/lake", ("data", "farm/lake/zenthos-gold/t/x")),
    ],
)
def test_url_of_s3(url: str, place: tuple[str, str]) -> None:
    store = open_store(url)
    assert isinstance(store, S3Store)
    assert store.place.locate(lake.GOLD, "t/x") == place


@pytest.mark.parametrize(
    "url",
    ["", "/folder", "file://host", "https://x", "s3:///folder", "s3://b?prefix=a", "s3://?x=1"],
)
def test_url_that_names_no_store(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"s3://.*storage.md"):
        open_store(url)
