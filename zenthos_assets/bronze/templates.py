"""The structure of a JSON text apart from its values, so that texts of one structure share columns.

1. A template is the text with its strings and numbers taken out; white space, keys, true, false and
   null stay in it. Texts of one template differ in nothing else.
2. Each value has a path: `$.sensors.temperature`, `$.features[0]`.
3. No template is made of a text with an escape, an exponent, a key that would make paths ambiguous
   or come twice, or of more than MAX_PATTERN characters: such a text is kept as it is.
4. A number is matched as JSON writes it, without exponent; a string without escapes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_PATTERN: Final = 2_400
"""The regex engine matches up to so many, some 40 values, in one pass; more 20 times as slowly."""
MAX_DEPTH: Final = 16

STRING: Final = "string"
NUMBER: Final = "number"

_PATTERNS: Final = {
    STRING: r'([^"\\\x00-\x1f]*)',
    NUMBER: r"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?)",
}
_SPACE: Final = r"[ \t\n\r]*"
_TOKEN: Final = re.compile(
    rf'{_SPACE}(?:"{_PATTERNS[STRING]}"|{_PATTERNS[NUMBER]}(?![0-9.eE+-])'
    r"|(?P<constant>true|false|null)|(?P<mark>[{}\[\],:]))"
)
_KEY: Final = re.compile(r"[^.\[\]]+")


class NoTemplateError(ValueError):
    """Rule 3: a text that is kept as it is."""


@dataclass(frozen=True)
class Value:
    """A string or a number of a template."""

    path: str
    kind: str
    """STRING or NUMBER."""


@dataclass(frozen=True)
class Template:
    """`literals` are the texts around the `values`: one more than there are values."""

    literals: tuple[str, ...]
    values: tuple[Value, ...]

    @property
    def pattern(self) -> str:
        """A regular expression that matches the texts of this structure, a group for each value."""
        pieces = [re.escape(self.literals[0])]
        for value, literal in zip(self.values, self.literals[1:], strict=True):
            pieces += [_PATTERNS[value.kind], re.escape(literal)]
        return rf"\A{''.join(pieces)}\z"


def template_of(text: str) -> Template:
    """The template of a JSON text; NoTemplateError by rule 3."""
    if len(text) > MAX_PATTERN:
        raise NoTemplateError("too long")
    walker = _Walker(text)
    walker.value("$", 0)
    template = walker.finish()
    if len(template.pattern) > MAX_PATTERN:
        raise NoTemplateError("too long")
    return template


class _Walker:
    """One pass over a text, noting where its values begin and end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._cut = 0
        self._literals: list[str] = []
        self._values: list[Value] = []

    def finish(self) -> Template:
        rest = self._text[self._at :]
        paths = {value.path for value in self._values}
        if rest.strip(" \t\n\r") or len(paths) < len(self._values):
            raise NoTemplateError("more than one value, or a key that comes twice")
        return Template((*self._literals, self._text[self._cut :]), tuple(self._values))

    def value(self, path: str, depth: int) -> None:
        token = self._next()
        if token["mark"] == "{" and depth < MAX_DEPTH:
            self._members(path, depth)
        elif token["mark"] == "[" and depth < MAX_DEPTH:
            self._elements(path, depth)
        elif token["mark"] is not None:
            raise NoTemplateError(f"no value at {path}, or one nested too deeply")
        elif token["constant"] is None:
            self._take(path, token)

    def _take(self, path: str, token: re.Match[str]) -> None:
        group = 1 if token[1] is not None else 2
        self._literals.append(self._text[self._cut : token.start(group)])
        self._values.append(Value(path, STRING if group == 1 else NUMBER))
        self._cut = token.end(group)

    def _members(self, path: str, depth: int) -> None:
        keys = set()
        for _ in self._items("}"):
            key = self._next()[1]
            if key is None or not _KEY.fullmatch(key) or key in keys or self._mark() != ":":
                raise NoTemplateError(f"a key of {path} that is not plain or comes twice")
            keys.add(key)
            self.value(f"{path}.{key}", depth + 1)

    def _elements(self, path: str, depth: int) -> None:
        for number in self._items("]"):
            self.value(f"{path}[{number}]", depth + 1)

    def _items(self, end: str) -> Iterator[int]:
        """Count the items up to `end`, whose texts the caller consumes."""
        if self._peek() == end:
            self._next()
            return
        number = 0
        while True:
            yield number
            number += 1
            mark = self._mark()
            if mark == end:
                return
            if mark != ",":
                raise NoTemplateError(f"neither a comma nor {end}")

    def _peek(self) -> str | None:
        found = _TOKEN.match(self._text, self._at)
        return found["mark"] if found else None

    def _mark(self) -> str | None:
        return self._next()["mark"]

    def _next(self) -> re.Match[str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise NoTemplateError(f"no plain JSON at {self._at}")
        self._at = found.end()
        return found
