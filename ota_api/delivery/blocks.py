"""Blocks of stored binaries, in memory while they are asked for.

A rollout sends one binary to thousands of devices: each block is read once by a thread, however
many wait for it, and is then sent from memory, the same bytes to all. Binaries never change under
their key, so a block never goes stale.
"""

import asyncio
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from anyio import to_thread

from zenthos_core.blobs import BlobStore
from zenthos_core.errors import ArchiveError

BLOCK_BYTES: Final = 128 * 1024
"""What a slow client holds in memory at most, beside what others are sent."""


@dataclass(frozen=True)
class StoredFile:
    """An object that never changes under its key."""

    bucket: str
    key: str
    size: int
    sha256: str
    immutable_url: bool
    """Whether the URL asked for will always name this file; `latest` will not."""

    @property
    def etag(self) -> str:
        """Strong: the content's hash."""
        return f'"{self.sha256}"'

    @property
    def name(self) -> str:
        """As which a browser saves it."""
        return self.key.replace("/", "-")


_Address = tuple[str, str, int]


class BlockCache:
    """The blocks used last, `max_bytes` of them at most; not safe for several threads."""

    def __init__(self, store: BlobStore, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._blocks: OrderedDict[_Address, bytes] = OrderedDict()
        self._reading: dict[_Address, asyncio.Task[bytes]] = {}

    async def get(self, file: StoredFile, number: int) -> bytes:
        """A block, whole but for the last of a file.

        Raises:
            BlobNotFoundError: where the store has lost the file.
            ArchiveError: where the file is not as long as it was.
        """
        address = (file.key, file.sha256, number)
        block = self._blocks.get(address)
        if block is not None:
            self._blocks.move_to_end(address)
            return block
        task = self._reading.get(address)
        if task is None:
            task = self._reading[address] = asyncio.create_task(self._read(file, address))
            task.add_done_callback(lambda _: self._reading.pop(address, None))
        return await asyncio.shield(task)  # a client that goes leaves it to the others

    async def _read(self, file: StoredFile, address: _Address) -> bytes:
        block = await to_thread.run_sync(_read_block, self._store, file, address[2])
        self._blocks[address] = block
        self._held_bytes += len(block)
        while self._held_bytes > self._max_bytes:
            self._held_bytes -= len(self._blocks.popitem(last=False)[1])
        return block


def _read_block(store: BlobStore, file: StoredFile, number: int) -> bytes:
    with store.open(file.bucket, file.key) as source:
        size = source.seek(0, os.SEEK_END)
        source.seek(number * BLOCK_BYTES)
        block = source.read(BLOCK_BYTES)
    if size != file.size or len(block) != min(BLOCK_BYTES, file.size - number * BLOCK_BYTES):
        raise ArchiveError(
            f"{file.bucket}/{file.key} has {size} bytes, {file.size} were published: restore it"
        )
    return block
