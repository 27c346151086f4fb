"""Recorded measurements, read by a mapping into one table of readings per device.

Rules:

1. A file belongs to the kind in [files] whose pattern its path ends with.
2. Only columns that the mapping names are read, by name.
3. Files of several kinds are joined on the time, per device; a time that only one has stays.
4. A sensor whose columns a device does not have is left out for that device; one whose columns no
   device has is an error.
5. A missing value, or one that is no finite number after conversion, is left out; a row without
   any value is no reading. Converted values are rounded to six decimals.
6. A cell that is neither a number nor declared missing is an error, with its file, column and line.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Final

import polars as pl

from zenthos_cli.fleet.columns import TIME, read_columns, table_columns
from zenthos_cli.fleet.mapping import FIELD, LoadedMapping
from zenthos_core.errors import ConfigurationError
from zenthos_core.topics import DEVICE_ID

VALUE: Final = "value"
"""What expressions call the column of a device in a wide file."""


@dataclass(frozen=True)
class Recording:
    """The readings of one device: column `time` (UTC epoch seconds), then one per sensor."""

    device_id: str
    table: pl.DataFrame
    place: tuple[float, float] | None
    """Latitude and longitude."""


@dataclass(frozen=True)
class _Part:
    """One device's columns from one file; `fields` fill the templates of the mapping."""

    device_id: str
    kind: str
    path: Path
    fields: dict[str, str]
    table: pl.DataFrame


def read_recordings(mapping: LoadedMapping, inputs: Iterable[Path]) -> list[Recording]:
    """Read all files; folders are searched by the patterns of [files].

    Raises:
        ConfigurationError: naming the file, the column and the line.
    """
    inputs = list(inputs)
    files = _files(mapping, inputs)
    headers = {path: table_columns(path) for _, path in files}
    resolved = _resolve(mapping, [(kind, headers[path]) for kind, path in files])
    devices: dict[str, list[_Part]] = defaultdict(list)
    for kind, path in files:
        for part in _parts(mapping, kind, path, headers[path], set(resolved.values())):
            devices[part.device_id].append(part)
    places = _Places(mapping, inputs)
    return [
        Recording(device_id, _readings(mapping, parts, resolved), places.find(parts[0].fields))
        for device_id, parts in sorted(devices.items())
    ]


def _files(mapping: LoadedMapping, inputs: list[Path]) -> list[tuple[str, Path]]:
    kinds = mapping.rules.files
    found: dict[Path, str] = {}
    for given in inputs:
        if given.is_dir():
            found |= {path: kind for kind in kinds for path in sorted(given.glob(kinds[kind]))}
            continue
        if not given.is_file():
            raise ConfigurationError(f"{given}: no such file or folder")
        kind = next((k for k, pattern in kinds.items() if given.match(pattern)), None)
        if kind is None:
            raise mapping.error("files", f"{given} matches no pattern of [files]")
        found[given] = kind
    for kind, pattern in kinds.items():
        if kind not in found.values():
            where = ", ".join(map(str, inputs)) or "no files given"
            raise mapping.error(kind, f"no file matches `{pattern}` ({where})")
    return [(kind, path) for path, kind in found.items()]


def _resolve(mapping: LoadedMapping, files: list[tuple[str, list[str]]]) -> dict[str, str]:
    """Each name used in an expression → `kind.column`."""
    homes: dict[str, set[str]] = defaultdict(set)
    for kind, header in files:
        extra = [VALUE] if mapping.rules.device.columns is not None else []
        for column in [*header, *extra]:
            homes[column].add(kind)
            homes[f"{kind}.{column}"].add(kind)
    resolved = {}
    for sensor, expression in mapping.sensors.items():
        for name in sorted(expression.columns):
            if not homes[name]:
                known = ", ".join(sorted(n for n in homes if homes[n] and "." not in n))
                problem = f"sensor {sensor}: no file has a column `{name}`; there are: {known}"
                raise mapping.error(sensor, problem)
            if len(homes[name]) > 1:
                choices = " or ".join(f"{kind}.{name}" for kind in sorted(homes[name]))
                raise mapping.error(sensor, f"sensor {sensor}: write {choices}")
            (kind,) = homes[name]
            resolved[name] = name if name.startswith(f"{kind}.") else f"{kind}.{name}"
    return resolved


def _parts(
    mapping: LoadedMapping, kind: str, path: Path, header: list[str], wanted: set[str]
) -> Iterator[_Part]:
    """The devices of one file; columns come out as `kind.column`."""
    rule = mapping.rules.device
    columns = [column for column in header if f"{kind}.{column}" in wanted]
    if rule.columns is not None:
        pattern = mapping.regex("columns")
        matches = [match for column in header if (match := pattern.fullmatch(column))]
        if not matches:
            raise mapping.error("columns", f"{path} has no column that matches `{rule.columns}`")
        own = [match.string for match in matches]
        table = read_columns(mapping, path, [*columns, *own])
        for match in matches:
            fields = {"column": match.string, **match.groupdict()}
            picked = table.select(
                TIME, *_renamed(kind, columns), pl.col(match.string).alias(f"{kind}.{VALUE}")
            )
            yield _part(mapping, kind, path, fields, picked)
    elif rule.column is not None:
        if rule.column not in header:
            raise mapping.error("column", f"{path} has no column `{rule.column}`")
        table = read_columns(mapping, path, columns, key=rule.column)
        for (name, *_), group in table.group_by(rule.column, maintain_order=True):
            picked = group.select(TIME, *_renamed(kind, columns))
            yield _part(mapping, kind, path, {"column": str(name)}, picked)
    else:
        match = mapping.regex("file").search(path.name)
        if match is None:
            raise mapping.error("file", f"`{rule.file}` is not found in the name {path.name}")
        table = read_columns(mapping, path, columns).select(TIME, *_renamed(kind, columns))
        yield _part(mapping, kind, path, match.groupdict(), table)


def _renamed(kind: str, columns: list[str]) -> list[pl.Expr]:
    return [pl.col(column).alias(f"{kind}.{column}") for column in columns]


def _part(
    mapping: LoadedMapping, kind: str, path: Path, fields: dict[str, str], table: pl.DataFrame
) -> _Part:
    device_id = fill(mapping.rules.device.id, fields).lower()
    if not DEVICE_ID.fullmatch(device_id):
        raise mapping.error(
            "id", f"{path} gives the device id `{device_id}`: 3 to 63 of a-z, 0-9 and dashes"
        )
    return _Part(device_id, kind, path, fields, table)


def fill(template: str, fields: Mapping[str, str | None]) -> str:
    """A template with its `{name}` fields filled."""
    return FIELD.sub(lambda match: fields.get(match[1]) or "", template)


def _readings(mapping: LoadedMapping, parts: list[_Part], resolved: dict[str, str]) -> pl.DataFrame:
    kinds: dict[str, list[_Part]] = defaultdict(list)
    for part in parts:
        kinds[part.kind].append(part)
    tables = [_table(mapping, kind, group, joined=len(kinds) > 1) for kind, group in kinds.items()]
    table = reduce(lambda a, b: a.join(b, on=TIME, how="full", coalesce=True), tables)
    here = {name: pl.col(column) for name, column in resolved.items() if column in table.columns}
    sensors = [
        expression.over(here).alias(sensor)
        for sensor, expression in mapping.sensors.items()
        if expression.columns <= here.keys()
    ]
    readings = table.sort(TIME, maintain_order=True).select(TIME, *sensors)
    finite = [pl.when(c.is_finite()).then(c.round(6)).name.keep() for c in _sensors(readings)]
    readings = readings.with_columns(finite)
    return readings.filter(
        pl.any_horizontal(pl.lit(False), *(c.is_not_null() for c in _sensors(readings)))
    )


def _table(mapping: LoadedMapping, kind: str, parts: list[_Part], *, joined: bool) -> pl.DataFrame:
    """One kind's rows of a device, from all its files."""
    rows = pl.concat([part.table for part in parts], how="diagonal")
    twice = rows.filter(pl.col(TIME).is_duplicated())
    if joined and twice.height:
        when = datetime.fromtimestamp(twice[TIME][0], UTC)
        paths = ", ".join(str(part.path) for part in parts)
        raise mapping.error(kind, f"{paths}: {when:%Y-%m-%d %H:%M:%S} UTC occurs twice: no join")
    return rows


def _sensors(table: pl.DataFrame) -> list[pl.Expr]:
    return [pl.col(column) for column in table.columns if column != TIME]


class _Places:
    """Where the devices are, from the table that [location] names."""

    def __init__(self, mapping: LoadedMapping, inputs: list[Path]) -> None:
        self._mapping = mapping
        self._rows: dict[str, tuple[float, float]] = {}
        if (rule := mapping.rules.location) is None:
            return
        folders = [folder for path in inputs for folder in (path, *path.parents[:2])]
        path = next((f / rule.table for f in folders if (f / rule.table).is_file()), None)
        if path is None:
            raise mapping.error("table", f"no file `{rule.table}` in or above the files given")
        names = (rule.key, rule.latitude, rule.longitude)
        if missing := set(names) - set(table_columns(path)):
            raise mapping.error("location", f"{path} has no column `{min(missing)}`")
        table = pl.read_csv(path, columns=list(dict.fromkeys(names)), infer_schema=False)
        for key, latitude, longitude in table.select(names).iter_rows():
            try:
                self._rows[key] = float(latitude), float(longitude)
            except (TypeError, ValueError):
                continue  # a place without coordinates has none to give

    def find(self, fields: Mapping[str, str]) -> tuple[float, float] | None:
        """Coordinates of a device; ConfigurationError where the table lacks it."""
        if (rule := self._mapping.rules.location) is None:
            return None
        key = fill(rule.match, fields)
        if key not in self._rows:
            raise self._mapping.error("match", f"{rule.table} has no coordinates of `{key}`")
        return self._rows[key]
