"""Telemetry readings from the columns of shredded payloads.

1. Whether texts of a template are telemetry is decided once, by decoding one of them in which the
   values are harmless. What then remains to be looked at are lengths, signs and times.
2. A row of which anything is not plainly fine is left to readings.read_rows().
"""

from typing import Final
from uuid import UUID

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from zenthos_assets.bronze import columns
from zenthos_assets.bronze.codec import BUCKET, TEMPLATE, Layout
from zenthos_assets.bronze.columns import Decimal, Kind, Text, Uuid
from zenthos_assets.bronze.readings import READING_SCHEMA, SENSORS
from zenthos_assets.bronze.templates import STRING, Template
from zenthos_assets.bronze.transforms import Mask, device_of, event_times
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import MAX_PAYLOAD_BYTES, Telemetry, parse_payload
from zenthos_core.topics import MessageType

READ_SCHEMA: Final = pl.Schema([*READING_SCHEMA.items(), (BUCKET, pl.UInt16())])
"""Columns of Parsed.readings."""

LABELS: Final = ("firmware_version", "model_version", "device_model")
MAX_LABEL: Final = 64
SMALLEST_PLAIN: Final = 1e-3
"""From here on the shortest form of a number is written without exponent."""

_ID: Final = "$.message_id"
_DEVICE: Final = "$.device_id"
_TIME: Final = "$.timestamp"
_SIGNAL: Final = "$.signal_strength"
_SEQ: Final = "$.seq"
_SENSOR: Final = "$.sensors."


def columns_of(layout: Layout) -> list[str]:
    """Columns that readings are made of."""
    fields = {_ID, _DEVICE, _TIME, _SIGNAL, _SEQ, *(f"$.{label}" for label in LABELS)}
    paths = [path for path in layout.columns if path in fields or path.startswith(_SENSOR)]
    return [BUCKET, "topic", "received_at", TEMPLATE, *paths]


def texts_of(layout: Layout) -> list[str]:
    """Columns of few distinct texts."""
    paths = (_DEVICE, *(f"$.{label}" for label in LABELS))
    return [path for path in paths if layout.columns.get(path) == columns.describe(Text())]


def is_telemetry(template: Template, layout: Layout, number: int) -> Telemetry | None:
    """A text of the template decoded (rule 1); None where it breaks a rule of the wire."""
    if layout.longest[number] > MAX_PAYLOAD_BYTES:
        return None
    harmless = [
        str(UUID(int=0)) if value.path == _ID else "x" if value.kind == STRING else "0"
        for value in template.values
    ]
    text = "".join(
        [v for pair in zip(template.literals, [*harmless, ""], strict=True) for v in pair]
    )
    try:
        message = parse_payload(MessageType.TELEMETRY, text.encode())
    except InvalidMessageError:
        return None
    return message if isinstance(message, Telemetry) else None


class Reader:
    """Reads all rows at once, column by column, and keeps in `fine` which of them can be trusted.

    What a row that is not fine reads as means nothing.
    """

    def __init__(self, table: pa.Table, layout: Layout) -> None:
        self._table = table
        self._layout = layout
        self._messages = [
            is_telemetry(template, layout, number)
            for number, template in enumerate(layout.templates)
        ]
        # One entry more than there are templates: for the rows that have none.
        self._template = table[TEMPLATE].fill_null(len(self._messages)).to_numpy()
        self.fine: Mask = self._by_template([message is not None for message in self._messages])

    def readings(self) -> pl.DataFrame:
        """READING_SCHEMA and `bucket`; those that are not fine mean nothing."""
        received_us = self._table["received_at"].cast(pa.int64()).to_numpy()
        time_us, suspect = event_times(self._number(_TIME).to_numpy(), received_us)
        label = {name: self._label(name) for name in LABELS}
        backlog = [message is not None and message.backlog for message in self._messages]
        values = {
            "message_id": self._id(),
            "device_id": self._device(),
            "time": time_us,
            "received_at": received_us,
            **{name: self._number(_SENSOR + name) for name in SENSORS},
            "extra": self._extra(),
            "signal_strength": self._number(_SIGNAL),
            "seq": self._seq(),
            "firmware_version": label["firmware_version"],
            "model_version": label["model_version"],
            "clock_suspect": suspect,
            "backlog": self._by_template(backlog),
            BUCKET: pl.Series(self._table[BUCKET]),
        }
        return pl.DataFrame(values).cast(READ_SCHEMA)

    def _by_template(self, values: list[bool]) -> Mask:
        chosen: Mask = np.array([*values, False])[self._template]
        return chosen

    def _doubt(self, fine: pl.Series) -> None:
        """Rule 2; a null is what a row says that has no such value."""
        self.fine &= fine.fill_null(value=True).to_numpy()

    def _kind(self, path: str) -> Kind | None:
        return self._layout.kind(path) if path in self._layout.columns else None

    def _values(self, path: str) -> pl.Series:
        return columns.from_arrow(self._table[path], self._layout.kind(path))

    def _dictionary(self, name: str) -> tuple[pl.Series, pl.Series]:
        """The distinct texts of a column, and the place of each row's among them."""
        array = self._table[name].unify_dictionaries().combine_chunks()
        texts = pl.Series(pl.from_arrow(array.dictionary), dtype=pl.String())
        return texts, pl.Series(pl.from_arrow(array.indices))

    def _text(self, path: str) -> pl.Series:
        texts, codes = self._dictionary(path)
        return texts.gather(codes)

    def _absent(self, path: str) -> pl.Series:
        return pl.Series(pl.from_arrow(self._table[path].is_null()))

    def _nulls(self, dtype: pl.DataType) -> pl.Series:
        return pl.Series([None], dtype=dtype).new_from_index(0, len(self._table))

    def _number(self, path: str) -> pl.Series:
        match self._kind(path):
            case Decimal(_, most):
                return columns.floats(self._values(path), most)
            case Text():
                texts = self._values(path)
                numbers = texts.cast(pl.Float64, strict=False)
                self._doubt(texts.is_null() | numbers.is_finite().fill_null(value=False))
                return numbers
            case None:
                return self._nulls(pl.Float64())
        self._doubt(self._absent(path))
        return self._nulls(pl.Float64())

    def _id(self) -> pl.Series:
        if self._kind(_ID) == Uuid():
            return self._values(_ID)
        self.fine[:] = False
        return self._nulls(pl.Binary())

    def _device(self) -> pl.Series:
        """That of the topic, where the payload names the same."""
        topics, codes = self._dictionary("topic")
        named = pl.Series([device_of(topic) for topic in topics], dtype=pl.String()).gather(codes)
        match self._kind(_DEVICE):
            case None:
                self.fine[:] = False
            case Text():
                self._doubt(self._text(_DEVICE) == named)
            case kind:
                self._doubt(columns.render(self._values(_DEVICE), kind) == named)
        return named

    def _seq(self) -> pl.Series:
        match self._kind(_SEQ):
            case Decimal(_, 0):
                values = self._values(_SEQ)
                self._doubt(values >= 0)
                return values
            case None:
                return self._nulls(pl.Int64())
        self._doubt(self._absent(_SEQ))
        return self._nulls(pl.Int64())

    def _label(self, name: str) -> pl.Series:
        path = f"$.{name}"
        match self._kind(path):
            case Text():
                values, codes = self._dictionary(path)
                self._doubt(values.str.len_chars().is_between(1, MAX_LABEL).gather(codes))
                return values.gather(codes)
            case None:
                return self._nulls(pl.String())
        self._doubt(self._absent(path))
        return self._nulls(pl.String())

    def _extra(self) -> pl.Series:
        """Other sensors as JSON, by name; null where there are none."""
        known = {_SENSOR + name for name in SENSORS}
        others = [p for p in self._layout.columns if p.startswith(_SENSOR) and p not in known]
        members = [self._member(path) for path in sorted(others)]
        if not members:
            return self._nulls(pl.String())
        text = pl.concat_str(pl.all(), separator=",", ignore_nulls=True)
        joined = pl.when(text != "").then(pl.format("{{{}}}", text))
        return pl.DataFrame(members).select(joined.alias("extra")).to_series()

    def _member(self, path: str) -> pl.Series:
        """`"name":1.5` of one sensor, as the encoder writes it."""
        match self._kind(path):
            case Decimal(_, most):
                values = self._values(path)
                self._doubt((values == 0) | (values.abs() >= SMALLEST_PLAIN * 10**most))
                number = columns.render(values, Decimal(min(1, most), most))
                number = number if most else number + ".0"
                name = msgspec.json.encode(path.removeprefix(_SENSOR)).decode()
                return (pl.Series([f"{name}:"]) + number).alias(path)
        self._doubt(self._absent(path))
        return self._nulls(pl.String()).alias(path)
