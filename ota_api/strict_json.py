"""What JSON must be before anything parses it into what we work with.

1. UTF-8, whatever a client says of it.
2. Objects and lists at most MAX_DEPTH deep, as on the wire of the devices. That is found out
   without recursion, in time that grows with the body alone.
3. A name once in an object: two parsers that take another of two values see two documents.
4. Numbers that are finite.
5. No U+0000 and no half of a surrogate pair, in names or values: no database text holds them.
"""

import json
import re
from collections import Counter
from typing import Any, Final

from zenthos_core.errors import InvalidInputError

MAX_DEPTH: Final = 64

_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]"))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def check_json(body: bytes) -> None:
    """Rules 1 to 5; InvalidInputError for a body that breaks one, or is not JSON."""
    if is_deep(body):
        raise InvalidInputError(f"nested too deep: send at most {MAX_DEPTH} levels")
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidInputError("U+0000 in a text: leave it out")
    try:
        parsed = json.loads(
            body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeError:
        raise InvalidInputError("not UTF-8, or half of a surrogate pair: send whole text") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"not JSON that can be read: {error}") from None


def is_deep(body: bytes) -> bool:
    """Whether objects and lists are more than MAX_DEPTH deep; brackets without partner count."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", body).translate(_ONE_KIND).translate(None, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        left = brackets.replace(b"[]", b"")
        if len(left) == len(brackets):
            break
        brackets = left
    return bool(brackets)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidInputError(f"{twice[:50]!r} twice in an object: send it once")
    return found


def _refuse_constant(word: str) -> float:
    raise InvalidInputError(f"{word} is no number of JSON")
