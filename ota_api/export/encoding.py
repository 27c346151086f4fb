"""Tables as the bytes of one Parquet or CSV file, a group of rows at a time.

CSV has no bytes: a binary column is written in hexadecimal, so a message_id is a UUID without its
dashes. Loads pyarrow: import it where it is used.
"""

import io
from collections.abc import Generator

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ota_api.export.batches import Source, grouped
from ota_api.export.schemas import ExportFormat
from zenthos_core.errors import ConflictError


class Outbox(io.RawIOBase):
    """What a writer has written and nobody has taken yet."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview") -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Everything since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def encode(source: Source, format_: ExportFormat) -> Generator[bytes, None, None]:
    """The file in pieces, none of them empty; to be closed where it is not read to its end."""
    outbox = Outbox()
    csv = format_ is ExportFormat.CSV
    schema = _csv_schema(source.schema) if csv else source.schema
    try:
        with _writer(outbox, schema, csv=csv) as writer:
            for table in grouped(source):
                writer.write_table(_as_text(table, schema) if csv else table)
                if written := outbox.take():
                    yield written
        yield outbox.take()
    finally:
        source.batches.close()


def _writer(
    outbox: Outbox, schema: pa.Schema, *, csv: bool
) -> "pa_csv.CSVWriter | pq.ParquetWriter":
    if csv:
        return pa_csv.CSVWriter(outbox, schema)
    return pq.ParquetWriter(outbox, schema, compression="zstd")


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise ConflictError(f"CSV cannot hold {', '.join(nested)}: ask for parquet")
    return pa.schema([(f.name, pa.string() if _is_bytes(f.type) else f.type) for f in schema])


def _as_text(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array([v if v is None else v.hex() for v in column.to_pylist()], pa.string())
        if _is_bytes(column.type)
        else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_))
