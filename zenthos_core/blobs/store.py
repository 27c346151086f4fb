"""What the platform needs of object storage, whichever it is."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol


class BlobStore(Protocol):
    """Buckets of objects. Keys are `/`-separated and relative; ValueError for any other.

    Whatever keeps a store from working is an OSError or a BlobStoreError that says what to do.
    """

    presigns: bool
    """Whether others can be given URLs to it."""

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Store an object whole, replacing one of that key: readers see old or new."""

    def put_file(self, bucket: str, key: str, file: BinaryIO) -> None:
        """As put, with what a file holds from where it stands, never all of it in memory."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; one that is not there is removed already."""

    def get(self, bucket: str, key: str) -> bytes:
        """Read an object whole; BlobNotFoundError where there is none."""

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Open an object for reading at any offset; BlobNotFoundError where there is none."""

    def exists(self, bucket: str, key: str) -> bool:
        """Whether there is an object under that key."""

    def presign(self, bucket: str, key: str, *, expires_s: int, filename: str) -> str | None:
        """A URL at which anyone gets the object for a while; None where there are none."""

    def keys(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Keys of a bucket that begin with `prefix`, sorted."""


def check_key(key: str) -> list[str]:
    """The parts of an object key; ValueError for one that would leave its bucket."""
    parts = key.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\\" in key or "\0" in key:
        raise ValueError(f"not an object key: {key!r}")
    return parts
