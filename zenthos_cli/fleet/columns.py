"""Columns of CSV and Parquet files as times and numbers; a bad cell is named, never guessed."""

from pathlib import Path
from typing import Final

import polars as pl

from zenthos_cli.fleet.mapping import FIELD, LoadedMapping
from zenthos_core.errors import ConfigurationError

TIME: Final = "time"
"""UTC epoch seconds of a reading, Int64."""
_TEXT: Final = "__time"
_KEY: Final = "__key"
_EPOCHS: Final = {"epoch_s": 1, "epoch_ms": 1000}


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a file; ConfigurationError where it cannot be read as a table."""
    try:
        return _scan(path).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigurationError(f"{path} is not a readable table: {error}") from None


def read_columns(
    mapping: LoadedMapping, path: Path, columns: list[str], key: str | None = None
) -> pl.DataFrame:
    """`time`, the numeric `columns`, and `key` as text where it is given.

    Raises:
        ConfigurationError: for a cell that is no number or no time.
    """
    keys = [] if key is None else [pl.col(key).cast(pl.String).alias(_KEY)]
    try:
        table = (
            _scan(path)
            .select(_time_text(mapping, path), *keys, *map(pl.col, dict.fromkeys(columns)))
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    numbers = [_numbers(mapping, path, table[column]) for column in dict.fromkeys(columns)]
    kept = [] if key is None else [table[_KEY].alias(key)]
    return pl.DataFrame([_times(mapping, path, table[_TEXT]), *kept, *numbers])


def _scan(path: Path) -> pl.LazyFrame:
    """CSV cells stay text here, so that a bad one can be shown as it stands."""
    if path.suffix == ".parquet":
        return pl.scan_parquet(path)
    return pl.scan_csv(path, infer_schema=False)


def _time_text(mapping: LoadedMapping, path: Path) -> pl.Expr:
    """The mapping's time: one column as it is, or several joined to a text."""
    template = mapping.rules.time.text
    names = FIELD.findall(template) or [template]
    if missing := set(names) - set(table_columns(path)):
        raise mapping.error("text", f"{path} has no column `{min(missing)}`")
    if template in (names[0], f"{{{names[0]}}}"):
        return pl.col(names[0]).alias(_TEXT)
    return pl.format(FIELD.sub("{}", template), *map(pl.col, names)).alias(_TEXT)


def _times(mapping: LoadedMapping, path: Path, cells: pl.Series) -> pl.Series:
    rule = mapping.rules.time
    if cells.dtype.is_temporal():
        moments = cells.cast(pl.Datetime("us", getattr(cells.dtype, "time_zone", None)))
        return _epoch(mapping, path, cells, moments)
    if rule.format in _EPOCHS:
        numbers = cells.cast(pl.Float64, strict=False) // _EPOCHS[rule.format]
        _refuse(path, cells, numbers.is_null(), mapping.rules.time.text, "a time")
        return numbers.cast(pl.Int64).alias(TIME)
    moments = cells.cast(pl.String).str.to_datetime(rule.format, strict=False, time_unit="us")
    return _epoch(mapping, path, cells, moments)


def _epoch(mapping: LoadedMapping, path: Path, cells: pl.Series, moments: pl.Series) -> pl.Series:
    """Epoch seconds; an hour that a change of clocks repeats is taken the first time."""
    _refuse(path, cells, moments.is_null(), mapping.rules.time.text, "a time")
    if getattr(moments.dtype, "time_zone", None) is None:
        zone = mapping.rules.time.timezone
        try:
            moments = moments.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        except pl.exceptions.PolarsError as error:
            raise mapping.error("timezone", str(error)) from None
        _refuse(path, cells, moments.is_null(), mapping.rules.time.text, f"a time in {zone}")
    return moments.dt.epoch("s").cast(pl.Int64).alias(TIME)


def _numbers(mapping: LoadedMapping, path: Path, cells: pl.Series) -> pl.Series:
    if cells.dtype.is_numeric():
        return cells.cast(pl.Float64)
    texts = cells.cast(pl.String).str.strip_chars()
    present = ~texts.is_in(list(mapping.rules.missing)).fill_null(True)
    numbers = texts.cast(pl.Float64, strict=False)
    _refuse(path, cells, present & numbers.is_null(), cells.name, "a number")
    return numbers.set(~present, None)


def _refuse(path: Path, cells: pl.Series, bad: pl.Series, column: str, wanted: str) -> None:
    """An error for the first bad cell; a CSV's header is line 1."""
    if bad.any():
        row = int(bad.arg_true()[0])
        place = f"row {row + 1}" if path.suffix == ".parquet" else f"line {row + 2}"
        raise ConfigurationError(
            f"{path}, {place}, column {column}: `{cells[row]}` is not {wanted}; "
            "correct it, or declare it under `missing` or `format` in the mapping"
        )
