"""A row of the outbox as the envelope that consumers get. Pure.

The payload travels inside it byte for byte: it is never decoded and written anew.
"""

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import event_time


class Position(NamedTuple):
    """A place in the outbox: rows are ordered by transaction, then by id."""

    xid: int
    id: int


class Row(NamedTuple):
    """A committed message, as the outbox holds it."""

    position: Position
    message_type: str
    topic: str
    payload: bytes
    received_at: datetime


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One message for consumers; `id` is what they recognise a repeated delivery by."""

    id: str
    type: str
    device_id: str
    timestamp: float
    payload: msgspec.Raw


class _Head(msgspec.Struct, gc=False):
    """What an envelope takes from a payload."""

    message_id: UUID
    device_id: str
    timestamp: int | float | None = None


_decode: Final = msgspec.json.Decoder(_Head).decode
_encode: Final = msgspec.json.Encoder().encode


def envelope_of(row: Row) -> Envelope:
    """The envelope of a row.

    `timestamp` is the payload's, or the time of receipt where that is unusable (rule 7 of
    `zenthos_core.messages`).

    Raises:
        InvalidMessageError: the payload is no device message; ingest puts none such in the outbox.
    """
    try:
        head = _decode(row.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessageError("wrong_type", str(error)) from None
    timestamp, _ = event_time(head.timestamp, row.received_at.timestamp())
    payload = msgspec.Raw(row.payload)
    return Envelope(str(head.message_id), row.message_type, head.device_id, timestamp, payload)


def encode(envelope: Envelope) -> bytes:
    """The envelope as a JSON object."""
    return _encode(envelope)
