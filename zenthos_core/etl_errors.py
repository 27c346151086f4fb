"""etl_errors: archived messages that the lineage could not use, and what a person made of them.

1. A message is `open` until somebody replays or dismisses it, or a later build could use it after
   all (`resolved`: its device has been registered since).
2. Building the same day again finds the same messages, and leaves their states as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final

import psycopg
from psycopg.rows import class_row

from zenthos_core.errors import NotFoundError

_COLUMNS: Final = (
    "id, asset, day, topic, device_id, payload, received_at, reason, detail, object_key,"
    " occurrences, state"
)
_SELECT: Final = f"""
SELECT {_COLUMNS} FROM etl_errors
WHERE state = coalesce(%(state)s, state) AND day = coalesce(%(day)s, day)
ORDER BY id DESC LIMIT %(limit)s"""


class State(StrEnum):
    """What became of a message (rule 1)."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISMISSED = "dismissed"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class EtlError:
    """A message that could not be used, and why."""

    id: int
    asset: str
    day: date
    topic: str
    device_id: str | None
    payload: bytes
    received_at: datetime
    reason: str
    detail: str
    object_key: str
    occurrences: int
    state: str


def list_errors(
    connection: psycopg.Connection,
    *,
    state: State | None = None,
    day: date | None = None,
    limit: int = 100,
) -> Sequence[EtlError]:
    """The latest of them, in a state and of a day or of all."""
    with connection.cursor(row_factory=class_row(EtlError)) as cursor:
        return cursor.execute(_SELECT, {"state": state, "day": day, "limit": limit}).fetchall()


def find_errors(connection: psycopg.Connection, ids: Sequence[int]) -> Sequence[EtlError]:
    """Those errors, in the order of their ids.

    Raises:
        NotFoundError: where there is no error of one of the ids.
    """
    with connection.cursor(row_factory=class_row(EtlError)) as cursor:
        query = f"SELECT {_COLUMNS} FROM etl_errors WHERE id = ANY(%s) ORDER BY id"
        found = cursor.execute(query, [list(ids)]).fetchall()
    if missing := sorted(set(ids) - {error.id for error in found}):
        raise NotFoundError(f"no error {missing[0]}: `zenthos errors list` shows their numbers")
    return found


def set_state(connection: psycopg.Connection, ids: Sequence[int], state: State) -> None:
    """Put errors into a state."""
    connection.execute("UPDATE etl_errors SET state = %s WHERE id = ANY(%s)", [state, list(ids)])
