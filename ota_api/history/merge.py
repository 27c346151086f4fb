"""What a page of history holds, and how fine it is.

1. A reading that both planes have comes once, as the hot plane has it.
2. Readings come in the order of their time, then of their message id; pages are cut by that key.
3. Of a plane that has more than was read, nothing is known past the last row: no page goes there.
   So a page may be shorter than asked for; it is the last one where there is no next key.
4. `auto` is the finest of raw, hourly and daily that gives at most MAX_POINTS points, going by the
   interval at which the device reports.
"""

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from ota_api.history.schemas import MAX_POINTS, HistoryPart, HistoryPoint, Resolution
from ota_api.planes import Plane
from zenthos_core.errors import InvalidInputError

USUAL_INTERVAL_S: Final = 300.0
"""Of a device that has not been heard of."""
NOBODY: Final = UUID(int=0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_KEY: Final = re.compile(r"(raw|hourly|daily)\.([0-9]{1,17})(?:\.([0-9a-f]{32}))?")

Key = tuple[datetime, UUID]


class Cursor(NamedTuple):
    """Where a page ended."""

    resolution: Resolution
    time: datetime
    message_id: UUID = NOBODY

    def encode(self) -> str:
        """As `next`."""
        number = (self.time - _EPOCH) // _MICROSECOND
        return f"{self.resolution}.{number}.{self.message_id.hex}"

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """InvalidInputError where it is none of ours."""
        match = _KEY.fullmatch(text)
        if match is None or match[3] is None:
            raise InvalidInputError("after is not the `next` of a page: send it as it came")
        time = _EPOCH + int(match[2]) * _MICROSECOND
        return cls(Resolution(match[1]), time, UUID(hex=match[3]))


def key_of(point: HistoryPoint) -> Key:
    """Rule 2."""
    return point.time, point.message_id or NOBODY


def merge(
    hot: Sequence[HistoryPoint],
    cold: Sequence[HistoryPoint],
    limit: int,
    in_hot: Collection[UUID] = (),
) -> tuple[list[HistoryPoint], Key | None]:
    """Rules 1 to 3: a page, and the key after which the next one begins.

    Args:
        hot: up to `limit + 1` points of the hot plane, in order.
        cold: as many of the analytical plane.
        limit: most points of a page.
        in_hot: further messages that the hot plane has, wherever.
    """
    horizon = min((key_of(side[-1]) for side in (hot, cold) if len(side) > limit), default=None)
    known = {*in_hot, *(point.message_id for point in hot if point.message_id)}
    points = sorted([*hot, *(p for p in cold if p.message_id not in known)], key=key_of)
    certain = [p for p in points if horizon is None or key_of(p) <= horizon]
    shown = certain[:limit]
    if len(certain) > limit:
        return shown, key_of(shown[-1])
    return shown, horizon


def describe_parts(points: Sequence[HistoryPoint]) -> list[HistoryPart]:
    """What came from which plane."""
    parts = []
    for plane in (Plane.ANALYTICAL, Plane.HOT):
        times = [point.time for point in points if point.plane is plane]
        if times:
            parts.append(
                HistoryPart(plane=plane, first=times[0], last=times[-1], points=len(times))
            )
    return parts


def choose_resolution(span: timedelta, interval_s: float | None) -> Resolution:
    """Rule 4."""
    seconds = span.total_seconds()
    if seconds / (interval_s or USUAL_INTERVAL_S) <= MAX_POINTS:
        return Resolution.RAW
    return Resolution.HOURLY if seconds / 3600 <= MAX_POINTS else Resolution.DAILY
