"""An object that is read in ranges, as a file."""

import io
from collections.abc import Callable
from typing import BinaryIO, Final, cast

BUFFER_BYTES: Final = 256 * 1024
"""Least that is asked for: a request costs as long as it takes to send about as much."""

ReadRange = Callable[[int, int], bytes]
"""Bytes `first` up to and without `end`."""


class RangeReader(io.RawIOBase):
    """A seekable file of `size` bytes over requests for ranges."""

    def __init__(self, size: int, read_range: ReadRange) -> None:
        super().__init__()
        self._size = size
        self._read_range = read_range
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}, before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The rest in one request; the base class asks for 8 KiB at a time."""
        return self._take(self._size)

    def _take(self, length: int) -> bytes:
        end = min(self._position + length, self._size)
        if end <= self._position:
            return b""
        data = self._read_range(self._position, end)
        if len(data) != end - self._position:
            raise OSError(f"asked for {end - self._position} bytes, {len(data)} came")
        self._position = end
        return data


def open_reader(size: int, read_range: ReadRange) -> BinaryIO:
    """A buffered file of `size` bytes."""
    return cast(BinaryIO, io.BufferedReader(RangeReader(size, read_range), BUFFER_BYTES))
