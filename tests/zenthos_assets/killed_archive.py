"""Archives an hour in a process that is killed on its way.

python -m tests.zenthos_assets.killed_archive OPS_URL FOLDER TABLE HOUR WHEN

WHEN is written, read_back or committed.
"""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

import psycopg

from zenthos_assets.bronze import outbox
from zenthos_core.blobs import FolderStore


def die() -> None:
    """As kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingStore(FolderStore):
    """Dies after an object was written, or when it was read back."""

    def __init__(self, root: Path, when: str) -> None:
        super().__init__(root)
        self._when = when

    def put(self, bucket: str, key: str, data: bytes) -> None:
        super().put(bucket, key, data)
        if self._when == "written":
            die()

    def get(self, bucket: str, key: str) -> bytes:
        data = super().get(bucket, key)
        if self._when == "read_back":
            die()
        return data


def main(url: str, folder: str, table: str, hour: str, when: str) -> None:
    """Archive one part."""
    store = DyingStore(Path(folder), when)
    with psycopg.connect(url) as connection:
        at = datetime.fromisoformat(hour)
        outbox.archive_part(connection, store, table, at, run_id="killed")
        die()


main(*sys.argv[1:])
