"""Byte ranges (RFC 9110, section 14): which part of a file a request asks for.

1. Only GET has ranges, and only the unit `bytes`; anything else, or malformed, gets the whole file.
2. Several ranges get the whole file: a client that resumes asks for one.
3. A range that begins past the end, or an empty suffix, cannot be satisfied (416).
4. `If-Range` must be the file's own strong ETag; anything else gets the whole file.
"""

import re
from typing import Final, NamedTuple

_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,1000})-([0-9]{0,1000})[ \t]*", re.IGNORECASE)


class Part(NamedTuple):
    """Bytes `first` up to and without `end`."""

    first: int
    end: int


class UnsatisfiableRangeError(Exception):
    """The range lies outside the file."""


def choose_part(
    size: int, etag: str, *, range_header: str | None, if_range: str | None
) -> Part | None:
    """The part of a file of `size` bytes to send, or None for the whole.

    Raises:
        UnsatisfiableRangeError: by rule 3.
    """
    match = _RANGE.fullmatch(range_header or "")
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        return _suffix(size, int(last))
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableRangeError
    return Part(int(first), min(int(last) + 1, size) if last else size)


def matches_etag(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has the file already (`If-None-Match`, weak comparison)."""
    if if_none_match is None:
        return False
    candidates = {c.strip().removeprefix("W/") for c in if_none_match.split(",")}
    return etag in candidates or candidates == {"*"}


def _suffix(size: int, length: int) -> Part:
    if length == 0:
        raise UnsatisfiableRangeError
    return Part(max(size - length, 0), size)
