"""Messages on local disk while the database is away: acknowledged once they are there for good.

A spool is a folder of segments, read in the order of their numbers. A record is its length and
CRC-32, then time of receipt, flags and topic, and the payload. Rules:

1. `append` returns only after fsync; what it raises for is not in the spool.
2. Records are read back in the order in which they were appended.
3. A record that was cut short by a crash was never acknowledged: the end of a segment begins there.
   A damaged record before the end is set aside with what follows it, loudly, never skipped.
4. The spool holds at most `max_bytes`; then it refuses, and the broker keeps the messages.
5. How far it has been replayed is kept in the database, in the transaction that stores; a segment
   is removed once that is past its end.
"""

import fcntl
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, Self

from zenthos_core.errors import ConfigurationError, ZenthosError
from zenthos_core.mqtt import Publish

logger = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 16 * 2**20
_HEAD: Final = Struct(">II")
_FIELDS: Final = Struct(">dBH")
_PREFIX_BYTES: Final = _HEAD.size + _FIELDS.size


class SpoolFullError(ZenthosError):
    """The spool takes no more: it is at its bound, or the disk is full."""


class Position(NamedTuple):
    """A segment, and how many of its bytes; (0, 0) is before everything."""

    segment: int
    offset: int


BEGINNING: Final = Position(0, 0)


class Entry(NamedTuple):
    """A message, and where in the spool it ends."""

    publish: Publish
    end: Position


def pack(publish: Publish) -> bytes:
    """One record."""
    fields = _FIELDS.pack(publish.received_at, publish.flags, len(publish.topic))
    body = fields + publish.topic + publish.payload
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def unpack(data: bytes, at: int) -> tuple[Publish, int] | None:
    """The record that begins at `at` and where it ends; None where there is no whole record."""
    if len(data) - at < _PREFIX_BYTES:
        return None
    length, checksum = _HEAD.unpack_from(data, at)
    start, end = at + _HEAD.size, at + _HEAD.size + length
    body = data[start:end]
    if len(body) < length or length < _FIELDS.size or zlib.crc32(body) != checksum:
        return None
    received_at, flags, topic_bytes = _FIELDS.unpack_from(body)
    topic_end = _FIELDS.size + topic_bytes
    return Publish(body[_FIELDS.size : topic_end], body[topic_end:], received_at, 0, flags), end


class Spool:
    """One worker's spool; nobody else may have the folder open."""

    def __init__(self, folder: Path, max_bytes: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(
                f"{folder} is in use by another worker: give each its own ZENTHOS_INGEST_WORKER_ID"
            ) from None
        self._sizes = {int(path.stem): path.stat().st_size for path in folder.glob("*.spool")}
        self._file: int | None = None
        """The segment that is being written, the last one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_segment()
        os.close(self._lock)

    @property
    def size_bytes(self) -> int:
        """What is on disk, replayed or not."""
        return sum(self._sizes.values())

    def append(self, messages: Sequence[Publish], now: float) -> None:
        """Keep messages; they are on disk when this returns. `now` is in epoch seconds.

        Raises:
            SpoolFullError: none of them is kept.
        """
        data = b"".join(map(pack, messages))
        if self.size_bytes + len(data) > self._max_bytes:
            raise SpoolFullError(
                f"the spool holds {self.size_bytes >> 20} MiB: raise ZENTHOS_INGEST_SPOOL_MAX_MB"
            )
        file = self._file
        if file is None or self._sizes[max(self._sizes)] >= self._segment_bytes:
            file = self._begin_segment(int(now * 1e3))
        self._write(file, data)

    def _begin_segment(self, number: int) -> int:
        """Numbers are times, so that they grow even where an emptied folder begins anew."""
        self._end_segment()
        number = max(number, *(n + 1 for n in self._sizes), 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        try:
            self._file = file = os.open(self._path(number), flags, 0o600)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SpoolFullError(f"no new segment in {self._folder}: {error.strerror}") from error
        self._sizes[number] = 0
        return file

    def _write(self, file: int, data: bytes) -> None:
        number = max(self._sizes)
        before = self._sizes[number]
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fdatasync(file)
        except OSError as error:
            # Whatever has reached the disk is not acknowledged. After a failed fsync nobody knows
            # what has, so this segment is not written to again.
            os.ftruncate(file, before)
            self._end_segment()
            if not before:  # else a disk that stays full would get an empty one at each try
                self._path(number).unlink()
                del self._sizes[number]
            raise SpoolFullError(f"cannot write to {self._folder}: {error.strerror}") from error
        self._sizes[number] = before + len(data)

    def _end_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self, after: Position) -> Iterator[Entry]:
        """Messages in order, from the first that ends behind `after`.

        A position in a segment that is not here says nothing of those that are: the clock may have
        been set back since, or another machine has replayed its own under this worker's id.
        """
        if after.segment not in self._sizes:
            after = BEGINNING
        for number in sorted(self._sizes):
            if number >= after.segment:
                offset = after.offset if number == after.segment else 0
                yield from self._read_segment(number, offset)

    def _read_segment(self, number: int, at: int) -> Iterator[Entry]:
        data = self._path(number).read_bytes()
        while record := unpack(data, at):
            publish, at = record
            yield Entry(publish, Position(number, at))
        if at < len(data):
            self._set_aside(number, data[at:])

    def _set_aside(self, number: int, rest: bytes) -> None:
        """Keep what is no record: cut short by a crash, or damaged."""
        path = self._path(number).with_suffix(".damaged")
        path.unlink(missing_ok=True)  # it may be the segment itself, see below
        try:
            path.write_bytes(rest)
        except OSError:  # a full disk: the whole segment under another name takes no room
            path.unlink(missing_ok=True)
            path.hardlink_to(self._path(number))
        logger.error(
            "%d bytes at the end of spool segment %d are no record and are kept in %s; "
            "where a crash cut them short, the broker sends that message again",
            *(len(rest), number, path),
        )

    def remove(self, upto: Position) -> None:
        """Remove the segments that have been replayed."""
        for number in sorted(n for n in self._sizes if n <= upto.segment):  # rule 5: the last last
            if number < upto.segment or upto.offset >= self._sizes[number]:
                if number == max(self._sizes):
                    self._end_segment()
                self._path(number).unlink()
                del self._sizes[number]

    def clear(self) -> None:
        """Remove everything: all of it has been replayed."""
        if self._sizes:
            self.remove(Position(max(self._sizes) + 1, 0))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.spool"
