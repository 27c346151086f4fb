"""Telemetry readings of many objects as one frame: a few large steps in place of many small ones.

1. What is read is what shredded.read_telemetry() reads of each object, one after the other.
2. Neighbours that agree on the kinds of the columns they share are read as one table, in which
   their templates are numbered anew.
3. An object that holds a row which is not plainly fine is read by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from zenthos_assets.bronze import codec
from zenthos_assets.bronze.codec import TEMPLATE, Layout
from zenthos_assets.bronze.reader import READ_SCHEMA, Reader
from zenthos_assets.bronze.readings import MALFORMED_SCHEMA
from zenthos_assets.bronze.shredded import Buckets, read_columns, read_telemetry
from zenthos_assets.bronze.templates import Template


@dataclass(frozen=True)
class _Opened:
    """An object; the table and layout of a plain one are without columns."""

    key: str
    data: bytes
    table: pa.Table | None
    layout: Layout


@dataclass
class _Neighbours:
    """Objects that are read as one table (rule 2)."""

    members: list[_Opened] = field(default_factory=list)
    columns: dict[str, dict[str, object]] = field(default_factory=dict)

    def agrees_with(self, other: _Opened) -> bool:
        mine, theirs = self.columns, other.layout.columns
        return all(mine[path] == theirs[path] for path in mine.keys() & theirs.keys())

    def add(self, other: _Opened) -> None:
        self.members.append(other)
        self.columns |= other.layout.columns


@codec.whole()
def read_together(
    objects: Mapping[str, bytes], buckets: Buckets | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Readings (READ_SCHEMA) and malformed messages (with `object_key`), object by object.

    Raises:
        ArchiveError: where an object is damaged; it says which.
    """
    readings = [READ_SCHEMA.to_frame()]
    malformed = [pl.Schema({**MALFORMED_SCHEMA, "object_key": pl.String()}).to_frame()]
    for neighbours in _in_groups(_open(objects, buckets)):
        for known, opened in _read(neighbours):
            if opened is None:
                readings.append(known)
                continue
            with codec.naming(opened.key):
                parsed = read_telemetry(opened.data, buckets)
            readings.append(parsed.readings.select(READ_SCHEMA.names()))
            malformed.append(parsed.malformed.with_columns(object_key=pl.lit(opened.key)))
    return pl.concat(readings), pl.concat(malformed)


def _open(objects: Mapping[str, bytes], buckets: Buckets | None) -> Iterator[_Opened]:
    for key, data in objects.items():
        with codec.naming(key):
            found = read_columns(data, buckets)
        yield _Opened(key, data, *(found or (None, codec.NOTHING_SHREDDED)))


def _in_groups(opened: Iterable[_Opened]) -> Iterator[_Neighbours]:
    group = _Neighbours()
    for one in opened:
        alone = one.table is None
        if group.members and (alone or not group.agrees_with(one)):
            yield group
            group = _Neighbours()
        group.add(one)
        if alone:
            yield group
            group = _Neighbours()
    if group.members:
        yield group


def _read(group: _Neighbours) -> Iterator[tuple[pl.DataFrame, _Opened | None]]:
    """Readings, in order; or in place of them an object that is to be read by itself (rule 3)."""
    tables = [one.table for one in group.members if one.table is not None]
    if len(tables) < len(group.members):
        yield from ((READ_SCHEMA.to_frame(), one) for one in group.members)
        return
    reader = Reader(*_as_one(group, tables))
    readings = reader.readings()
    if reader.fine.all():
        yield readings, None
        return
    ends = np.cumsum([len(table) for table in tables])
    for one, table, end in zip(group.members, tables, ends, strict=True):
        start = int(end) - len(table)
        fine = bool(reader.fine[start:end].all())
        yield readings.slice(start, len(table)), None if fine else one


def _as_one(group: _Neighbours, tables: list[pa.Table]) -> tuple[pa.Table, Layout]:
    templates: list[Template] = []
    longest: list[int] = []
    numbered = []
    for one, table in zip(group.members, tables, strict=True):
        numbers = pc.add(table[TEMPLATE].cast(pa.int32()), len(templates))
        place = table.schema.get_field_index(TEMPLATE)
        numbered.append(table.set_column(place, TEMPLATE, numbers))
        templates += one.layout.templates
        longest += one.layout.longest
    # A column that an object lacks is null in its rows.
    whole = pa.concat_tables(numbered, promote_options="default")
    return whole, Layout(templates, group.columns, longest)
