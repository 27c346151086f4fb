"""Record batches from sources that differ to one schema, in groups of a size that suits a file.

Loads pyarrow: import it where it is used.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import Final, NamedTuple

import pyarrow as pa

from zenthos_core.errors import ConflictError

GROUP_ROWS: Final = 100_000
"""Rows of a row group, and about what is held in memory at once."""


class Source(NamedTuple):
    """A table to be read piece by piece."""

    schema: pa.Schema
    batches: Generator[pa.RecordBatch, None, None]


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same columns in the types that every reader knows, without a library's own notes."""
    return pa.schema([pa.field(f.name, _plain_type(f.type)) for f in schema])


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _plain_type(type_.value_type)
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return pa.binary()
    return type_


def unify(schemas: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """One schema that holds all of them: columns added, numbers widened.

    Args:
        schemas: each with the name of what has it.

    Raises:
        ConflictError: where a column has types that no type holds.
    """
    whole = pa.schema([])
    for name, schema in schemas:
        try:
            whole = pa.unify_schemas([whole, plain_schema(schema)], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = " ".join(str(error).split())
            raise ConflictError(
                f"from {name} on, a column has another type ({reason}): export what lies before"
                " that day and what follows on their own"
            ) from None
    return whole


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in that schema; a column that it lacks is null."""
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def grouped(source: Source, rows: int = GROUP_ROWS) -> Iterator[pa.Table]:
    """The batches put together to tables of at least so many rows, but for the last."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in source.batches:
        held.append(batch)
        count += len(batch)
        if count >= rows:
            yield pa.Table.from_batches(held, source.schema)
            held, count = [], 0
    if held:
        yield pa.Table.from_batches(held, source.schema)
