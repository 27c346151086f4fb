"""An export: what it is, found before it is answered; then its bytes, piece by piece.

At most MOST_AT_ONCE run in one server: they share its cores with devices that download. An export
holds a group of rows in memory, whatever its size.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final, NamedTuple

from opentelemetry import metrics

from ota_api.export.catalogue import TABLES, LakeTable, SqlTable, Table
from ota_api.export.schemas import ExportFormat, ExportTable, Selection
from zenthos_core.blobs import BlobStore
from zenthos_core.database import Database
from zenthos_core.errors import BusyError, ConflictError, NotFoundError
from zenthos_core.settings import Settings

MOST_AT_ONCE: Final = 3

_exports = metrics.get_meter(__name__).create_counter(
    "zenthos.ota.exports", description="Exports begun."
)


class Export(NamedTuple):
    """An export that has begun."""

    filename: str
    format: ExportFormat
    chunks: Iterator[bytes]
    close: Callable[[], None]
    """Ends it, read to its end or not."""


class ExportSlots:
    """Counts the exports that run, in one event loop."""

    def __init__(self, most: int = MOST_AT_ONCE) -> None:
        self._free = most

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold one; BusyError where all are taken."""
        if not self._free:
            raise BusyError("as many exports as this server allows are running: ask again later")
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def list_tables() -> list[ExportTable]:
    """What may be exported, in order."""
    return [
        ExportTable(
            name=name, what=table.what, range_of=table.range_of or None, formats=formats_of(table)
        )
        for name, table in sorted(TABLES.items())
    ]


def formats_of(table: Table) -> list[ExportFormat]:
    """Bronze is handed out as stored: what decodes it belongs to the lineage."""
    if isinstance(table, LakeTable) and table.stored_as_received:
        return [ExportFormat.TAR]
    return [ExportFormat.PARQUET, ExportFormat.CSV]


def begin_export(settings: Settings, store: BlobStore, name: str, selection: Selection) -> Export:
    """Find what is asked for and read its beginning, so that errors are still answers.

    Raises:
        NotFoundError: for an unknown table, or where nothing is selected.
        ConflictError: for a format that the table does not have, or a column that changed type.
    """
    table = TABLES.get(name)
    if table is None:
        raise NotFoundError(f"no table {name!r} to export: there are {', '.join(sorted(TABLES))}")
    formats = formats_of(table)
    wanted = selection.format or formats[0]
    if wanted not in formats:
        raise ConflictError(f"{name} comes as {' or '.join(formats)}, not as {wanted}")
    chunks = _chunks(settings, store, table, selection, wanted)
    first = next(chunks)
    _exports.add(1, {"table": name, "format": wanted.value})
    filename = f"{name.rpartition('/')[2]}.{wanted}"
    return Export(filename, wanted, chain([first], chunks), chunks.close)


def _chunks(
    settings: Settings,
    store: BlobStore,
    table: Table,
    selection: Selection,
    wanted: ExportFormat,
) -> Generator[bytes, None, None]:
    # pyarrow is loaded by the first export, not by the server
    from ota_api.export import encoding, objects, repository

    if isinstance(table, SqlTable):
        source = repository.read_rows(_url(settings, table.database), table, selection)
        return encoding.encode(source, wanted)
    keys = objects.find_objects(store, table, selection)
    if table.stored_as_received:
        if selection.device:
            raise ConflictError("bronze comes as it is stored: leave `device` out")
        return objects.read_tar(store, table.bucket, keys)
    source = objects.read_objects(store, table.bucket, keys, selection.device)
    return encoding.encode(source, wanted)


def _url(settings: Settings, database: Database) -> str:
    of = {
        Database.OPS: settings.database_url,
        Database.ANALYTICS: settings.analytics_database_url,
    }
    return of[database].get_secret_value()
