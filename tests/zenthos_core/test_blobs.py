"""The folder as object store."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_core.blobs import FolderStore, open_store
from zenthos_core.errors import BlobNotFoundError, ConfigurationError


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_put_get_replace(store: FolderStore) -> None:
    store.put("b", "a/b/c.bin", b"one")
    store.put("b", "a/b/c.bin", b"two")
    assert store.get("b", "a/b/c.bin") == b"two"
    with store.open("b", "a/b/c.bin") as file:
        file.seek(1)
        assert file.read() == b"wo"
    assert store.exists("b", "a/b/c.bin")
    assert not store.exists("b", "a/b")


def test_missing(store: FolderStore) -> None:
    store.put("b", "folder/file", b"")
    for key in ("nothing", "folder"):
        with pytest.raises(BlobNotFoundError):
            store.get("b", key)
        assert not store.exists("b", key)
    assert list(store.keys("other")) == []


def test_keys_are_sorted_and_whole(store: FolderStore) -> None:
    for key in ("t/2", "t/10", "a", "t/1/x"):
        store.put("b", key, b"")
    (store.root / "b" / ".a.partial").write_bytes(b"half")
    assert list(store.keys("b")) == ["a", "t/1/x", "t/10", "t/2"]
    assert list(store.keys("b", "t/1")) == ["t/1/x", "t/10"]


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\\b", "a\0"]
)
def test_keys_that_would_leave_the_bucket(store: FolderStore, key: str) -> None:
    for use in (lambda: store.put("b", key, b""), lambda: store.get("b", key)):
        with pytest.raises(ValueError, match="object key"):
            use()


@given(st.text(max_size=30))
def test_no_key_leaves_its_bucket(key: str) -> None:
    root = Path("/store")
    try:
        path = FolderStore(root).path("b", key)
    except ValueError:
        return
    assert path.is_relative_to(root / "b")
    assert ".." not in path.parts


def test_a_write_that_fails_leaves_the_old_object_and_nothing_else(store: FolderStore) -> None:
    store.put("b", "x", b"old")
    with pytest.raises(TypeError):
        store.put("b", "x", "not bytes")  # type: ignore[arg-type]
    assert store.get("b", "x") == b"old"
    assert [p.name for p in (store.root / "b").iterdir()] == ["x"]


def test_readers_see_old_or_new_never_half(store: FolderStore) -> None:
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


def test_url(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    open_store(folder.as_uri()).put("b", "x", b"1")
    assert (folder / "b" / "x").read_bytes() == b"1"
    with pytest.raises(ConfigurationError, match="file:///"):
        open_store("s3://bucket")
