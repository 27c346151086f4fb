"""A folder store that fails once, at a call of one's choice."""

from pathlib import Path
from typing import BinaryIO

from zenthos_core.blobs import FolderStore


class FailingStore(FolderStore):
    """Raises OSError at its n-th call, counted from 0; before and after it works."""

    def __init__(self, root: Path, fails_at: int) -> None:
        super().__init__(root)
        self.fails_at = fails_at
        self.calls = 0

    @property
    def failed(self) -> bool:
        """Whether that call has come."""
        return self.calls > self.fails_at

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at + 1:
            raise OSError("no space left on device")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._count()
        super().put(bucket, key, data)

    def open(self, bucket: str, key: str) -> BinaryIO:
        self._count()
        return super().open(bucket, key)

    def exists(self, bucket: str, key: str) -> bool:
        self._count()
        return super().exists(bucket, key)
