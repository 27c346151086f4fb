"""Rows of PostgreSQL's binary COPY format, packed by hand because that is where the time goes.

Each field is its length in bytes (int32, -1 for NULL) and its value in network byte order; see
PostgreSQL's documentation of COPY, "Binary Format".
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct
from typing import Final

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
NULL: Final = b"\xff\xff\xff\xff"
TRUE: Final = b"\0\0\0\1\1"
FALSE: Final = b"\0\0\0\1\0"

_EPOCH_S: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
_FLOAT8: Final = Struct(">id").pack
_INT8: Final = Struct(">iq").pack
_LENGTH: Final = Struct(">i").pack
_ARRAY: Final = Struct(">iiiii").pack
_FLOAT8_OID: Final = 701
_JSONB_VERSION: Final = b"\1"


def postgres_us(epoch_s: float) -> int:
    """A timestamptz: microseconds since 2000, from seconds since 1970."""
    return round((epoch_s - _EPOCH_S) * 1e6)


def timestamptz(epoch_s: float) -> bytes:
    """A timestamptz field."""
    return _INT8(8, postgres_us(epoch_s))


def float8(value: float | None) -> bytes:
    """A double precision field."""
    return NULL if value is None else _FLOAT8(8, value)


def int8(value: int | None) -> bytes:
    """A bigint field."""
    return NULL if value is None else _INT8(8, value)


def boolean(value: bool) -> bytes:
    """A boolean field."""
    return TRUE if value else FALSE


def binary(value: bytes) -> bytes:
    """A bytea, uuid (16 bytes) or UTF-8 text field."""
    return _LENGTH(len(value)) + value


def text(value: str) -> bytes:
    """A text field; the value holds no U+0000."""
    return binary(value.encode())


@lru_cache(maxsize=4096)
def label(value: str | None) -> bytes:
    """A text field of the few values that come again and again, such as a version."""
    return NULL if value is None else text(value)


def jsonb(document: bytes | None) -> bytes:
    """A jsonb field from JSON text."""
    return NULL if document is None else binary(_JSONB_VERSION + document)


def float8_array(values: list[float] | None) -> bytes:
    """A double precision[] field of one dimension."""
    if values is None:
        return NULL
    if not values:
        return binary(_LENGTH(0) + _LENGTH(0) + _LENGTH(_FLOAT8_OID))
    head = _ARRAY(1, 0, _FLOAT8_OID, len(values), 1)
    return binary(head + b"".join([_FLOAT8(8, value) for value in values]))


def stream(rows: Iterable[bytes]) -> bytes:
    """The whole of a COPY: header, rows, trailer."""
    return b"".join((HEADER, *rows, TRAILER))
