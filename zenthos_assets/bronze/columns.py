"""Values as they stand in JSON texts, as typed columns from which the same texts are made again.

1. Canonical lower-case UUIDs are 16 bytes.
2. Numbers are decimals of a column's most digits after the point. What is written has its trailing
   zeros cut off down to the column's fewest digits: 0 and 0 for integers, 1 and more for floats as
   most encoders write them, the same twice for a fixed number of digits.
3. Every other column is text. A column is typed only where nearly all of its values are made again;
   the rows of the others are kept as they are.
4. A decimal has at most 15 digits in all, so that it divided by a power of ten is the very double
   that a reader of JSON takes it for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

MAX_MANTISSA: Final = 10**15 - 1
MAX_DIGITS: Final = 15
TYPED_SHARE: Final = 0.98
"""Rule 3."""
JUDGED_TEXTS: Final = 4_096
"""Texts of a column looked at to choose its kind."""

_UUID: Final = r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\z"


@dataclass(frozen=True)
class Uuid:
    """16 bytes."""


@dataclass(frozen=True)
class Decimal:
    """Int64 multiples of 10^-most, written with `fewest` to `most` digits after the point."""

    fewest: int
    most: int


@dataclass(frozen=True)
class Text:
    """As it stands."""


Kind = Uuid | Decimal | Text


def describe(kind: Kind) -> dict[str, object]:
    """A kind as JSON."""
    match kind:
        case Decimal(fewest, most):
            return {"kind": "decimal", "digits": [fewest, most]}
        case Uuid():
            return {"kind": "uuid"}
        case Text():
            return {"kind": "text"}


def kind_from(description: Mapping[str, object]) -> Kind:
    """The reverse of describe()."""
    match description:
        case {"kind": "decimal", "digits": [int(fewest), int(most)]}:
            return Decimal(fewest, most)
        case {"kind": "uuid"}:
            return Uuid()
        case {"kind": "text"}:
            return Text()
    raise ValueError(f"no kind of column: {description}")


def narrowest(texts: pl.Series, *, numeric: bool) -> Kind:
    """The kind by rules 1 to 3; `numeric` where every text is a JSON number."""
    present = texts.drop_nulls()
    present = present.gather_every(max(1, len(present) // JUDGED_TEXTS))
    wanted = TYPED_SHARE * len(present)
    candidates = _decimals(present) if numeric else [Uuid()]
    best, kept = max(
        ((kind, _kept(present, kind)) for kind in candidates),
        key=lambda pair: pair[1],
        default=(Text(), 0),
    )
    return best if present.len() and kept >= wanted else Text()


def _decimals(texts: pl.Series) -> list[Kind]:
    """Decimals that may fit: of as many digits as all texts have, or as nearly all have."""
    digits = _digits(texts).sort()
    if digits.is_empty():
        return []
    tops = {int(digits[-1]), int(digits[int(TYPED_SHARE * (len(digits) - 1))])}
    return [
        Decimal(fewest, most)
        for most in sorted(tops, reverse=True)
        if most <= MAX_DIGITS
        for fewest in dict.fromkeys([min(1, most), most, 0])  # the first one of equals is taken
    ]


def _kept(texts: pl.Series, kind: Kind) -> int:
    """How many texts are made again."""
    return int((render(typed(texts, kind), kind) == texts).sum())


def _digits(texts: pl.Series) -> pl.Series:
    """Digits after the point of JSON numbers."""
    point = texts.str.find(".", literal=True)
    return (texts.str.len_bytes() - point - 1).fill_null(0).cast(pl.Int64)


def typed(texts: pl.Series, kind: Kind) -> pl.Series:
    """Texts as values of a kind: Binary, Int64 or String; null where that cannot be."""
    match kind:
        case Uuid():
            plain = texts.set(~texts.str.contains(_UUID).fill_null(value=False), None)
            return plain.str.replace_all("-", "", literal=True).str.decode("hex")
        case Decimal(_, most):
            missing = most - _digits(texts)
            mantissa = texts.str.replace(".", "", literal=True).cast(pl.Int64, strict=False)
            scale = pl.Series(10 ** np.clip(missing.fill_null(0).to_numpy(), 0, MAX_DIGITS))
            fits = (missing >= 0) & (mantissa.abs() <= MAX_MANTISSA // scale)
            return (mantissa * scale).set(~fits.fill_null(value=False), None)
        case Text():
            return texts


def render(values: pl.Series, kind: Kind) -> pl.Series:
    """The reverse of typed()."""
    match kind:
        case Uuid():
            text = values.bin.encode("hex")
            bounds = [(0, 8), (8, 4), (12, 4), (16, 4), (20, 12)]
            pieces = [text.str.slice(start, length).alias(str(start)) for start, length in bounds]
            return (
                pl.DataFrame(pieces)
                .select(pl.concat_str(pl.all(), separator="-").alias(values.name))
                .to_series()
            )
        case Decimal(fewest, most):
            return _numbers(values, fewest, most)
        case Text():
            return values


def _numbers(mantissas: pl.Series, fewest: int, most: int) -> pl.Series:
    if most == 0:
        return mantissas.cast(pl.String)
    size = mantissas.abs()
    whole, fraction = size // 10**most, size % 10**most
    tail = fraction.cast(pl.String).str.zfill(most)
    kept = tail.str.slice(0, fewest) + tail.str.slice(fewest).str.strip_chars_end("0")
    sign = pl.when(pl.col("m") < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    point = pl.when(pl.col("kept") == "").then(pl.lit("")).otherwise(pl.lit("."))
    frame = pl.DataFrame({"m": mantissas, "whole": whole.cast(pl.String), "kept": kept})
    text = pl.concat_str(sign, "whole", point, "kept")
    return frame.select(text.alias(mantissas.name)).to_series()


def to_arrow(values: pl.Series, kind: Kind) -> pa.Array:
    """A column as Parquet gets it: UUIDs of fixed size, decimals with their point."""
    array = values.rechunk().to_arrow()
    match kind:
        case Uuid():
            return array.cast(pa.large_binary()).cast(pa.binary(16))
        case Decimal(_, most) if most:
            return pa.Array.from_buffers(
                pa.decimal64(18, most), len(array), array.buffers(), array.null_count, array.offset
            )
        case _:
            return array


def from_arrow(array: pa.ChunkedArray, kind: Kind) -> pl.Series:
    """The reverse of to_arrow(): Binary, Int64 or String."""
    match kind:
        case Uuid():
            return pl.Series(pl.from_arrow(array.cast(pa.large_binary())), dtype=pl.Binary())
        case Decimal(_, most) if most:
            chunks = [_mantissas(chunk) for chunk in array.chunks]
            return pl.Series(pl.from_arrow(pa.chunked_array(chunks, pa.int64())), dtype=pl.Int64())
        case _:
            return pl.Series(pl.from_arrow(array))


def _mantissas(array: pa.Array) -> pa.Array:
    """The lower halves of decimals of 128 bits; the upper ones hold the sign alone."""
    _, content = array.buffers()
    halves = np.frombuffer(content, np.int64)
    lower = halves[2 * array.offset : 2 * (array.offset + len(array)) : 2]
    nulls = pc.is_null(array).to_numpy(zero_copy_only=False) if array.null_count else None
    return pa.array(lower, pa.int64(), mask=nulls)


def floats(mantissas: pl.Series, most: int) -> pl.Series:
    """Decimals as the correctly rounded doubles: polars would multiply by the reciprocal."""
    quotients = pl.Series(mantissas.fill_null(0).cast(pl.Float64).to_numpy() / 10.0**most)
    return quotients.set(mantissas.is_null(), None) if mantissas.null_count() else quotients
