"""Parquet in which each column has the encoding that makes it smallest."""

from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSION_LEVEL: Final = 9
SAMPLE_ROWS: Final = 16_384
_DICTIONARY: Final = "DICTIONARY"
_ENCODINGS: Final = (_DICTIONARY, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "PLAIN")


def write_smallest(
    table: pa.Table,
    row_group_rows: int,
    searched: Collection[str],
    metadata: Mapping[bytes, bytes],
) -> bytes:
    """A Parquet file with zstd; the same table gives the same bytes.

    Which encoding is the smallest is tried on some rows from the middle.

    Args:
        table: what to write.
        row_group_rows: rows of a row group.
        searched: columns whose row groups tell their smallest and largest value.
        metadata: of the file.
    """
    middle = max(0, len(table) - SAMPLE_ROWS) // 2
    sample = table.slice(middle, SAMPLE_ROWS)
    sizes = {encoding: _sizes(sample, encoding) for encoding in _ENCODINGS}
    best = {
        name: min(_ENCODINGS, key=lambda encoding: sizes[encoding][name])
        for name in table.column_names
    }
    buffer = BytesIO()
    with _writer(buffer, table.schema, best, searched) as writer:
        writer.write_table(table, row_group_size=row_group_rows)
        writer.add_key_value_metadata(metadata)
    return buffer.getvalue()


def _sizes(table: pa.Table, encoding: str) -> dict[str, int]:
    """Bytes of each column in an encoding; of one that cannot have it, in its plain one."""
    buffer = BytesIO()
    with _writer(buffer, table.schema, dict.fromkeys(table.column_names, encoding), ()) as writer:
        writer.write_table(table)
    metadata = pq.read_metadata(pa.BufferReader(buffer.getvalue()))
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {
        name: sum(group.column(place).total_compressed_size for group in groups)
        for place, name in enumerate(table.column_names)
    }


def _writer(
    buffer: BytesIO, schema: pa.Schema, encodings: Mapping[str, str], searched: Collection[str]
) -> pq.ParquetWriter:
    """The Arrow schema is left out: it is as large as the rest of the footer, and not needed."""
    numbers = {
        field.name
        for field in schema
        if pa.types.is_primitive(field.type) and not pa.types.is_boolean(field.type)
    }
    return pq.ParquetWriter(
        buffer,
        schema,
        compression="zstd",
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=[name for name, e in encodings.items() if e == _DICTIONARY],
        column_encoding={
            name: encoding if name in numbers else "PLAIN"
            for name, encoding in encodings.items()
            if encoding != _DICTIONARY
        },
        store_decimal_as_integer=True,
        store_schema=False,
        write_statistics=[name for name in schema.names if name in searched],
    )
