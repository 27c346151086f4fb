"""Mapping files: how recorded measurements become readings of devices. See docs/reference/fleet.md.

Every mistake is reported with the file, the line and what would be right.
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from zenthos_cli.fleet import expressions
from zenthos_cli.fleet.expressions import Expression
from zenthos_core.errors import ConfigurationError
from zenthos_core.topics import DEVICE_MODEL

SENSOR_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
FIELD = re.compile(r"\{(\w+)\}")
Text = Annotated[str, msgspec.Meta(min_length=1)]


class DeviceRule(msgspec.Struct, forbid_unknown_fields=True):
    """Where a device id comes from: exactly one of `file`, `column` and `columns`."""

    id: Text
    file: str | None = None
    """Regular expression searched in the file's name; its named groups fill `id`."""
    column: str | None = None
    """Column whose value fills `{column}` in `id`."""
    columns: str | None = None
    """Wide files: each column whose whole name matches is a device; expressions call it `value`."""


class TimeRule(msgspec.Struct, forbid_unknown_fields=True):
    """`text` names the column, or joins several: `{day} {hour}:00`."""

    text: Text
    format: str = "%Y-%m-%d %H:%M:%S"
    """strptime format, or epoch_s, epoch_ms."""
    timezone: str = "UTC"


class Location(msgspec.Struct, forbid_unknown_fields=True):
    """A CSV table of places; `match` is filled like the device's `id` and sought in `key`."""

    table: Text
    key: Text
    match: Text
    latitude: str = "latitude"
    longitude: str = "longitude"


class Mapping(msgspec.Struct, forbid_unknown_fields=True):
    """A whole mapping file."""

    farm: Text
    device_model: Text
    files: dict[str, Text]
    device: DeviceRule
    time: TimeRule
    sensors: dict[str, str | int | float]
    device_type: Text = "soil-station"
    firmware_version: str | None = None
    missing: tuple[str, ...] = ("", "NA", "NaN", "nan", "null")
    location: Location | None = None


class LoadedMapping:
    """A mapping whose expressions are parsed, and which can say where in its file something is."""

    def __init__(self, path: Path, text: str, rules: Mapping) -> None:
        self.path = path
        self.rules = rules
        self._text = text
        self.sensors = {name: self._expression(name) for name in rules.sensors}
        self._check()

    @property
    def salt(self) -> str:
        """Names what a reading holds: the same mapping gives the same message ids."""
        content = "\n".join(f"{k}={v}" for k, v in sorted(self.rules.sensors.items()))
        return f"replay:{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def error(self, key: str, problem: str) -> ConfigurationError:
        """An error at the line where `key` is set."""
        return _error_at(self.path, self._text, [key], problem)

    def regex(self, key: Literal["file", "columns"]) -> re.Pattern[str]:
        """That pattern of [device], compiled."""
        pattern = getattr(self.rules.device, key)
        try:
            return re.compile(pattern)
        except re.error as error:
            raise self.error(key, f"`{pattern}` is not a regular expression: {error}") from None

    def _expression(self, name: str) -> Expression:
        if not SENSOR_NAME.fullmatch(name):
            raise self.error(name, f"sensor `{name}`: use a-z, 0-9 and _, beginning with a letter")
        try:
            return expressions.parse(str(self.rules.sensors[name]))
        except ValueError as error:
            raise self.error(name, f"sensor {name}: {error}") from None

    def _check(self) -> None:
        rules, device = self.rules, self.rules.device
        if not DEVICE_MODEL.fullmatch(rules.device_model):
            raise self.error("device_model", f"`{rules.device_model}`: use a-z, 0-9 and dashes")
        if not rules.files or not rules.sensors:
            raise self.error("files", "[files] and [sensors] need one entry at least")
        if sum(rule is not None for rule in (device.file, device.column, device.columns)) != 1:
            raise self.error("device", "[device] needs one of `file`, `column` and `columns`")
        if len(rules.files) > 1 and device.file is None:
            raise self.error(
                "files", "several kinds of files are joined by device: use [device] file"
            )
        groups = {"column"}
        if device.file is not None:
            groups |= set(self.regex("file").groupindex)
        if device.columns is not None:
            groups |= set(self.regex("columns").groupindex)
        for key, template in (
            ("id", device.id),
            ("match", rules.location and rules.location.match),
        ):
            for unknown in set(FIELD.findall(template or "")) - groups:
                raise self.error(key, f"{{{unknown}}} is none of {', '.join(sorted(groups))}")
        if not FIELD.findall(device.id):
            raise self.error("id", f"`{device.id}` gives all devices one id: use a {{group}}")


def load_mapping(path: Path) -> LoadedMapping:
    """Read a mapping file; ConfigurationError with its line for whatever is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read mapping file {path}: {error}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    try:
        return LoadedMapping(path, text, msgspec.convert(document, Mapping))
    except msgspec.ValidationError as error:
        places = re.findall(r"field `(\w+)`", str(error)) + re.findall(r"\.(\w+)", str(error))[::-1]
        raise _error_at(path, text, places, str(error)) from None


def _error_at(path: Path, text: str, keys: list[str], problem: str) -> ConfigurationError:
    """An error at the first line that sets the first of `keys` that any line sets."""
    lines = text.splitlines()
    for key in keys:
        pattern = re.compile(rf'\s*\[?"?{re.escape(key)}"?\s*[\]=]')
        for number, line in enumerate(lines, 1):
            if pattern.match(line):
                return ConfigurationError(f"{path}, line {number}: {problem}")
    return ConfigurationError(f"{path}, line 1: {problem}")
