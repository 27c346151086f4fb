"""Tables of the lake, object by object.

Loads pyarrow: import it where it is used.
"""

import io
import re
import tarfile
from collections.abc import Generator, Sequence
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ota_api.export.batches import GROUP_ROWS, Source, conform, unify
from ota_api.export.catalogue import LakeTable
from ota_api.export.schemas import Selection
from zenthos_core.blobs import BlobStore
from zenthos_core.errors import NotFoundError

CHUNK_BYTES: Final = 256 * 1024
DEVICE_COLUMN: Final = "device_id"
_DAY: Final = re.compile(r"/(\d{4})/(\d{2})/(\d{2})[/.]")


def find_objects(store: BlobStore, table: LakeTable, selection: Selection) -> list[str]:
    """Keys of the objects of the days selected, in order.

    Raises:
        NotFoundError: where there is none; it says which days there are.
    """
    days = {
        key: found for key in store.keys(table.bucket, f"{table.folder}/") if (found := _day(key))
    }
    keys = [key for key, day in days.items() if selection.holds(day)]
    if not keys:
        there = f"there is {min(days.values())} to {max(days.values())}" if days else "none is yet"
        raise NotFoundError(
            f"nothing of {table.bucket}/{table.folder} {selection.describe_range()}: {there}"
        )
    return keys


def _day(key: str) -> date | None:
    """The day that an object is about; None for what is not a day's, such as a piece of one."""
    match = _DAY.search(key)
    if match is None or match.start() != key.index("/"):
        return None
    return date(*map(int, match.groups()))


def read_objects(
    store: BlobStore, bucket: str, keys: Sequence[str], devices: Sequence[str]
) -> Source:
    """The rows of Parquet objects, those of the devices named, or all.

    Raises:
        ConflictError: where objects differ in the type of a column.
        NotFoundError: for devices of a table that has no such column.
    """
    schema = unify((key, _schema(store, bucket, key)) for key in keys)
    if devices and DEVICE_COLUMN not in schema.names:
        raise NotFoundError(f"{bucket}/{keys[0]} is not by device: leave `device` out")
    return Source(schema, _batches(store, bucket, keys, devices, schema))


def _schema(store: BlobStore, bucket: str, key: str) -> pa.Schema:
    with store.open(bucket, key) as file:
        return pq.read_schema(file)


def _batches(
    store: BlobStore, bucket: str, keys: Sequence[str], devices: Sequence[str], schema: pa.Schema
) -> Generator[pa.RecordBatch, None, None]:
    wanted = pa.array(devices, pa.string())
    for key in keys:
        with store.open(bucket, key) as file:
            for batch in pq.ParquetFile(file).iter_batches(GROUP_ROWS):
                whole = conform(batch, schema)
                if devices:
                    whole = whole.filter(pc.is_in(whole.column(DEVICE_COLUMN), wanted))
                if len(whole):
                    yield whole


def read_tar(store: BlobStore, bucket: str, keys: Sequence[str]) -> Generator[bytes, None, None]:
    """The objects as they are stored, under their keys, as one tar archive."""
    for key in keys:
        with store.open(bucket, key) as file:
            entry = tarfile.TarInfo(key)
            entry.size = file.seek(0, io.SEEK_END)
            file.seek(0)
            yield entry.tobuf(tarfile.PAX_FORMAT)
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")
        if rest := entry.size % tarfile.BLOCKSIZE:
            yield bytes(tarfile.BLOCKSIZE - rest)
    yield bytes(2 * tarfile.BLOCKSIZE)
