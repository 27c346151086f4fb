"""Stores that fail or kill their process at a chosen call, and programs that are killed."""

import os
import signal
import subprocess
import sys
from typing import Any

from zenthos_assets.resources import Platform
from zenthos_core.blobs import BlobStore, FolderStore


class FaultyStore(FolderStore):
    """A folder whose n-th call of `put` or `get` fails; a negative n kills the process after it."""

    def __init__(self, store: BlobStore, *, put: int = 0, get: int = 0) -> None:
        assert isinstance(store, FolderStore)
        super().__init__(store.root)
        self._left = {"put": put, "get": get}

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._count("put")
        super().put(bucket, key, data)
        self._kill("put")

    def get(self, bucket: str, key: str) -> bytes:
        self._count("get")
        return super().get(bucket, key)

    def _count(self, call: str) -> None:
        if self._left[call] > 0:
            self._left[call] -= 1
            if not self._left[call]:
                raise OSError(f"the disk refused to {call}")

    def _kill(self, call: str) -> None:
        if self._left[call] < 0:
            self._left[call] += 1
            if not self._left[call]:
                os.kill(os.getpid(), signal.SIGKILL)


class FaultyPlatform(Platform):
    """A platform whose lake is a FaultyStore."""

    fail_put: int = 0
    fail_get: int = 0

    def store(self) -> BlobStore:
        """The data lake, with its fault."""
        return FaultyStore(super().store(), put=self.fail_put, get=self.fail_get)


def run_program(program: str, *arguments: Any) -> int:
    """The exit status of a Python program; -9 where it was killed."""
    argv = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(argv, check=False, capture_output=True).returncode
