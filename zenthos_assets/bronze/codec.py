"""Bronze objects: messages as Parquet with their payloads shredded into columns, byte-exact.

1. Rows are ordered by (bucket of the device, topic, arrival): a device's messages lie together in
   order of arrival, and a range of buckets is a range of row groups.
2. Payloads of one template are kept as the columns of its values, at their JSON paths, and as the
   number of the template in `template`. Everything else is kept as it is in `payload`.
3. A row is shredded only if its payload has been made again from the columns and is the same.
4. Templates and kinds of columns are in the file's metadata, under METADATA_KEY.
5. `received_at` and the flags are as in SCHEMA; `ingest_delay_us` is ingested_at - received_at.
6. Objects without that metadata are of the time before: rows of SCHEMA as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from zenthos_assets.bronze import columns
from zenthos_assets.bronze.columns import Kind
from zenthos_assets.bronze.encodings import write_smallest
from zenthos_assets.bronze.templates import NUMBER, NoTemplateError, Template, template_of
from zenthos_assets.bronze.transforms import SCHEMA, bucket_of, device_of
from zenthos_core import lake
from zenthos_core.errors import ArchiveError

METADATA_KEY: Final = b"zenthos.shredded"
MAX_TEMPLATES: Final = 32
MAX_SAMPLES: Final = 64
"""Rows looked at to find templates: after as many, the rest stays as it is."""
ROW_GROUP_ROWS: Final = 16_384
"""Small: what is read for some devices is little more than theirs. Costs 0.7 % of the size."""

BUCKET: Final = "bucket"
TEMPLATE: Final = "template"
DELAY: Final = "ingest_delay_us"
_SEARCHED: Final = (BUCKET, "topic", "received_at", "$.timestamp")
"""Columns by whose smallest and largest values readers leave row groups out."""
_PLAIN_COLUMNS: Final = ("topic", "received_at", "qos", "retain", "redelivered")
OWN_COLUMNS: Final = (BUCKET, *_PLAIN_COLUMNS, DELAY, TEMPLATE, "payload")
"""All but those of values."""


class Layout(msgspec.Struct, frozen=True):
    """What the metadata says of an object."""

    templates: list[Template]
    columns: dict[str, dict[str, object]]
    longest: list[int]
    """Bytes of the longest payload of each template."""

    def kind(self, path: str) -> Kind:
        """The kind of the column of a path."""
        return columns.kind_from(self.columns[path])


NOTHING_SHREDDED: Final = Layout([], {}, [])


@contextmanager
def whole() -> Iterator[None]:
    """Inside, an object that cannot be read is an ArchiveError."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        raise ArchiveError(f"not a whole Parquet object: {error}") from error


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Inside, an ArchiveError says which object it is about and what to do."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(
            f"{lake.BRONZE}/{key} is damaged ({error}): run the partition again; if it stays so,"
            " put back a copy whose SHA-256 is that in bronze_objects"
        ) from error


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows by rule 1, with their bucket."""
    topics = frame["topic"].unique()
    buckets = pl.Series([bucket_of(device_of(topic)) for topic in topics], dtype=pl.UInt16())
    return frame.with_columns(
        pl.col("topic").replace_strict(topics, buckets, return_dtype=pl.UInt16()).alias(BUCKET)
    ).sort(BUCKET, "topic", maintain_order=True)


def encode(frame: pl.DataFrame) -> bytes:
    """Rows of SCHEMA as an object; the same rows give the same bytes."""
    ordered = in_order(frame)
    layout, shredded = _shred(ordered["payload"])
    head = ordered.select(
        BUCKET,
        *_PLAIN_COLUMNS,
        (pl.col("ingested_at") - pl.col("received_at")).dt.total_microseconds().alias(DELAY),
    )
    arrays = {name: head[name].to_arrow() for name in head.columns}
    for name in shredded.columns:
        kind = layout.kind(name) if name in layout.columns else columns.Text()
        arrays[name] = columns.to_arrow(shredded[name], kind)
    metadata = {METADATA_KEY: msgspec.json.encode(layout)}
    return write_smallest(pa.table(arrays), ROW_GROUP_ROWS, _SEARCHED, metadata)


@whole()
def decode(data: bytes) -> pl.DataFrame:
    """The rows of an object, of SCHEMA, in the object's order.

    Raises:
        ArchiveError: where `data` is no whole object.
    """
    file = open_object(data)
    layout = layout_of(file)
    if layout is None:
        return pl.DataFrame(pl.from_arrow(file.read())).select(SCHEMA.names()).cast(SCHEMA)
    return restore(file.read(), layout)


@whole()
def open_object(data: bytes, as_dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    """A Parquet file; ArchiveError where it is none."""
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(as_dictionaries))


def layout_of(file: pq.ParquetFile) -> Layout | None:
    """What the metadata says; None for an object of rows as they are."""
    found = (file.metadata.metadata or {}).get(METADATA_KEY)
    return None if found is None else msgspec.json.decode(found, type=Layout)


def restore(table: pa.Table, layout: Layout) -> pl.DataFrame:
    """Rows of SCHEMA from the columns of an object."""
    values = {path: columns.from_arrow(table[path], layout.kind(path)) for path in layout.columns}
    head = pl.DataFrame(pl.from_arrow(table.select([*_PLAIN_COLUMNS, DELAY])))
    raw = pl.Series(pl.from_arrow(table["payload"]), dtype=pl.Binary())
    numbers = pl.Series(pl.from_arrow(table[TEMPLATE]))
    payload = _payloads(numbers, raw, values, layout)
    ingested_at = pl.col("received_at") + pl.duration(microseconds=pl.col(DELAY))
    return (
        head.with_columns(ingested_at.alias("ingested_at"), payload.alias("payload"))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def _shred(payloads: pl.Series) -> tuple[Layout, pl.DataFrame]:
    """Layout, and a frame of template, payload and a typed column for each path (rules 2, 3)."""
    templates, texts = _match(payloads)
    kinds = {
        name: columns.narrowest(texts[name], numeric=numeric)
        for name, numeric in _paths(templates).items()
    }
    layout = Layout(
        templates,
        {path: columns.describe(kind) for path, kind in kinds.items()},
        _longest(payloads, texts[TEMPLATE], len(templates)),
    )
    values = {path: columns.typed(texts[path], kind) for path, kind in kinds.items()}
    numbers = texts[TEMPLATE]
    none = pl.Series([None], dtype=pl.Binary()).new_from_index(0, len(payloads))
    exact = (_payloads(numbers, none, values, layout) == payloads).fill_null(value=False)
    raw = {TEMPLATE: numbers.set(~exact, None), "payload": payloads.set(exact, None)}
    kept = {path: column.set(~exact, None) for path, column in values.items()}
    return layout, pl.DataFrame({**raw, **kept})


def _longest(payloads: pl.Series, numbers: pl.Series, count: int) -> list[int]:
    sizes = pl.DataFrame({"number": numbers, "size": payloads.bin.size()})
    found = dict(sizes.drop_nulls().group_by("number").max().iter_rows())
    return [found.get(number, 0) for number in range(count)]


def _paths(templates: list[Template]) -> dict[str, bool]:
    """Every path in order of its first appearance, and whether it is a number wherever it is."""
    found: dict[str, bool] = {}
    for value in (value for template in templates for value in template.values):
        found[value.path] = found.get(value.path, True) and value.kind == NUMBER
    return found


def _match(payloads: pl.Series) -> tuple[list[Template], pl.DataFrame]:
    """Templates, and each row's number of its template and the texts of its values by path."""
    rest = pl.DataFrame({"text": _texts(payloads)}).with_row_index("row")
    templates: list[Template] = []
    matched: list[pl.DataFrame] = []
    candidates = rest.drop_nulls("text")
    for _ in range(MAX_SAMPLES):
        if candidates.is_empty() or len(templates) == MAX_TEMPLATES:
            break
        middle = len(candidates) // 2
        try:
            template = template_of(candidates["text"][middle])
        except NoTemplateError:
            candidates = candidates.filter(pl.int_range(pl.len()) != middle)
            continue
        found = _extract(candidates, template)
        candidates = candidates.join(found, on="row", how="anti", maintain_order="left")
        matched.append(found.with_columns(pl.lit(len(templates), pl.UInt8()).alias(TEMPLATE)))
        templates.append(template)
    empty = pl.DataFrame(schema={"row": rest.schema["row"], TEMPLATE: pl.UInt8()})
    texts = pl.concat([empty, *matched], how="diagonal")
    return templates, rest.select("row").join(texts, on="row", how="left", maintain_order="left")


def _texts(payloads: pl.Series) -> pl.Series:
    """Payloads as text; null where they are not UTF-8."""
    try:
        return payloads.cast(pl.String)
    except pl.exceptions.ComputeError:
        texts = [None if (t := p.decode(errors="replace")).encode() != p else t for p in payloads]
        return pl.Series(texts, dtype=pl.String())


def _extract(candidates: pl.DataFrame, template: Template) -> pl.DataFrame:
    """Rows that the template matches whole: `row`, and the texts of its values by path."""
    if not template.values:
        return candidates.filter(pl.col("text") == template.literals[0]).select("row")
    groups = pl.col("text").str.extract_groups(template.pattern).alias("groups")
    names = [value.path for value in template.values]
    return (
        candidates.select("row", groups.struct.rename_fields(names))
        .unnest("groups")
        .drop_nulls(names[0])
    )


def _payloads(
    numbers: pl.Series, raw: pl.Series, values: Mapping[str, pl.Series], layout: Layout
) -> pl.Series:
    """Payloads made again: of rows with a template from their values, of the others from `raw`."""
    rows = pl.DataFrame({"number": numbers, "payload": raw}).with_row_index("row")
    parts = [rows.filter(pl.col("number").is_null()).select("row", "payload")]
    for number, template in enumerate(layout.templates):
        mine = (numbers == number).fill_null(value=False)
        texts = [
            columns.render(values[value.path].filter(mine), layout.kind(value.path)).alias(
                value.path
            )
            for value in template.values
        ]
        text = pl.concat_str(list(_woven(template))).cast(pl.Binary)
        parts.append(rows.filter(mine).select("row").hstack(texts).select("row", payload=text))
    return pl.concat(parts).sort("row")["payload"]


def _woven(template: Template) -> Iterator[pl.Expr]:
    yield pl.lit(template.literals[0])
    for value, literal in zip(template.values, template.literals[1:], strict=True):
        yield pl.col(value.path)
        yield pl.lit(literal)
