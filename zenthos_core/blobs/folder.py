"""A folder as object store, written atomically."""

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from zenthos_core.blobs.store import check_key
from zenthos_core.errors import BlobNotFoundError

COPY_BYTES: Final = 1024 * 1024
TOKEN_BYTES: Final = 4
"""Of what tells half-written files of one object apart."""


class FolderStore:
    """A folder as object store: `root/bucket/key`."""

    presigns = False

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, bucket: str, key: str) -> Path:
        """Where an object lies; ValueError for a key that would leave its bucket."""
        check_key(key)
        return self.root / bucket / key

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write beside the target, flush to disk, rename over it: readers see old or new, whole."""
        with self._replacing(bucket, key) as file:
            file.write(data)

    def put_file(self, bucket: str, key: str, file: BinaryIO) -> None:
        with self._replacing(bucket, key) as target:
            shutil.copyfileobj(file, target, COPY_BYTES)

    def delete(self, bucket: str, key: str) -> None:
        """With what a process that was killed has left of it."""
        path = self.path(bucket, key)
        with suppress(FileNotFoundError, NotADirectoryError):
            for partial in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 2 * TOKEN_BYTES}"):
                partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            _fsync_folder(path.parent)

    def get(self, bucket: str, key: str) -> bytes:
        with self.open(bucket, key) as file:
            return file.read()

    def open(self, bucket: str, key: str) -> BinaryIO:
        try:
            return self.path(bucket, key).open("rb")
        except (FileNotFoundError, IsADirectoryError):
            raise BlobNotFoundError(f"no object {bucket}/{key}") from None

    def exists(self, bucket: str, key: str) -> bool:
        return self.path(bucket, key).is_file()

    def presign(self, bucket: str, key: str, *, expires_s: int, filename: str) -> None:
        """None: a folder has no URL that others can reach."""

    def keys(self, bucket: str, prefix: str = "") -> Iterator[str]:
        base = self.root / bucket
        folder = prefix.rpartition("/")[0]
        below = self.path(bucket, folder) if folder else base
        paths = (p for p in below.rglob("*") if p.is_file() and not p.name.startswith("."))
        names = sorted(p.relative_to(base).as_posix() for p in paths)
        return (name for name in names if name.startswith(prefix))

    @contextmanager
    def _replacing(self, bucket: str, key: str) -> Iterator[BinaryIO]:
        target = self.path(bucket, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(TOKEN_BYTES)}")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(target.parent)


def _fsync_folder(folder: Path) -> None:
    """A rename is durable once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
