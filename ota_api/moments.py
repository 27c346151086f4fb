"""Moments and days in requests, all UTC, and ranges of them that are bounded."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

from zenthos_core.errors import InvalidInputError

FIRST: Final = date(2000, 1, 1)
LAST: Final = date(2099, 12, 31)
MAX_DAYS: Final = 400
"""In one answer."""


def _as_day(day: date) -> date:
    if not FIRST <= day <= LAST:
        raise ValueError(f"choose a day from {FIRST} to {LAST}")
    return day


def _as_utc(moment: datetime) -> datetime:
    _as_day(moment.date())  # what a zone adds cannot leave the calendar then
    return moment.astimezone(UTC)


Day = Annotated[date, AfterValidator(_as_day)]
Moment = Annotated[AwareDatetime, AfterValidator(_as_utc)]


def check_days(first: date, last: date) -> None:
    """InvalidInputError for days that are not in order, or too many."""
    if first > last:
        raise InvalidInputError(f"the range begins on {first}, after its end {last}: swap them")
    if (last - first).days >= MAX_DAYS:
        raise InvalidInputError(f"ask for at most {MAX_DAYS} days at once; /export has them all")


def start_of(day: date) -> datetime:
    """Its midnight."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def days_between(first: date, last: date) -> list[date]:
    """Both included."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
