"""Bronze comes as its objects are stored, in a tar archive; here their rows become one file.

Loads Polars and pyarrow: import it where it is used.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import polars as pl
import pyarrow.parquet as pq

from zenthos_assets.bronze.codec import decode
from zenthos_assets.bronze.transforms import SCHEMA


class ChunkReader(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        data = self._held or next(self._chunks, b"")
        taken = data[: len(buffer)]
        buffer[: len(taken)] = taken
        self._held = data[len(taken) :]
        return len(taken)


def write_rows(chunks: Iterator[bytes], file: BinaryIO, devices: Sequence[str]) -> int:
    """Decode the archive's objects one by one into a Parquet file; returns the number of rows."""
    count = 0
    schema = SCHEMA.to_frame().to_arrow().schema
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for data in _members(chunks):
            rows = decode(data).select(SCHEMA.names())
            if devices:
                rows = rows.filter(_device_id().is_in(list(devices)))
            writer.write_table(rows.to_arrow().cast(schema))
            count += len(rows)
    return count


def _members(chunks: Iterator[bytes]) -> Iterator[bytes]:
    reader = io.BufferedReader(ChunkReader(chunks))
    with tarfile.open(fileobj=reader, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield content.read()
    for _ in chunks:  # what follows the archive's end: an answer counts once it has come whole
        pass


def _device_id() -> pl.Expr:
    """The third part of `zenthos/{device_model}/{device_id}/{message_type}`."""
    return pl.col("topic").str.split("/").list.get(2, null_on_oob=True)
