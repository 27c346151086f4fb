"""The ledger: what became of every message, per device and UTC day of receipt.

received = stored + duplicate + quarantined + rate_limited, at every commit of ingest.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Final

import psycopg
from psycopg.rows import class_row

OUTCOMES: Final = ("stored", "duplicate", "quarantined", "rate_limited")

_SUMS: Final = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in OUTCOMES)
_TOTAL: Final = f"""
SELECT {_SUMS} FROM ledger
WHERE day >= coalesce(%(since)s::date, '-infinity')
  AND device_id = coalesce(%(device_id)s, device_id)
"""
_BY_DAY: Final = f"""
SELECT day, {_SUMS} FROM ledger
WHERE day >= %(since)s AND device_id = coalesce(%(device_id)s, device_id)
GROUP BY day ORDER BY day DESC
"""


@dataclass(frozen=True)
class Ledger:
    """Messages by what became of them."""

    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    rate_limited: int = 0

    @property
    def received(self) -> int:
        """Every message is counted once."""
        return sum(asdict(self).values())

    def minus(self, before: "Ledger") -> "Ledger":
        """What came after `before`."""
        earlier = asdict(before)
        return Ledger(**{name: count - earlier[name] for name, count in asdict(self).items()})


def read_ledger(
    connection: psycopg.Connection, *, since: date | None = None, device_id: str | None = None
) -> Ledger:
    """The sums over all days and devices, or over those asked for."""
    with connection.cursor(row_factory=class_row(Ledger)) as cursor:
        cursor.execute(_TOTAL, {"since": since, "device_id": device_id})
        return cursor.fetchone() or Ledger()


def read_days(
    connection: psycopg.Connection, *, since: date, device_id: str | None = None
) -> Sequence[tuple[date, Ledger]]:
    """The sums of each day that has any, the latest first."""
    rows = connection.execute(_BY_DAY, {"since": since, "device_id": device_id})
    return [(day, Ledger(*counts)) for day, *counts in rows]
