"""Every string that the OpenAPI document lets a client send, one by one with another text."""

import copy
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

Place = tuple[str | int, ...]
DEEPEST = 4


def string_places(schema: dict[str, Any], document: dict[str, Any], at: Place = ()) -> set[Place]:
    """Where a body of the schema may hold a string."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        found = schema.get("$defs", {}).get(name) or document["components"]["schemas"][name]
        return string_places(found, document, at)
    if len(at) > DEEPEST:
        return set()
    places = {at} if schema.get("type") == "string" and at else set()
    for choice in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(choice, []):
            places |= string_places(inner, document, at)
    for name, inner in schema.get("properties", {}).items():
        places |= string_places(inner, document, (*at, name))
    if isinstance(schema.get("items"), dict):
        places |= string_places(schema["items"], document, (*at, 0))
    return places


def with_text(body: Any, place: Place, text: str) -> Any:
    """The body with the text in that place, made where it is missing."""
    if not place:
        return text
    step, rest = place[0], place[1:]
    if step == 0:
        return [with_text(None, rest, text)]
    changed = copy.copy(body) if isinstance(body, dict) else {}
    changed[step] = with_text(changed.get(step), rest, text)
    return changed


def body_schema(operation: dict[str, Any]) -> dict[str, Any] | None:
    """Of what it takes as JSON."""
    content = operation.get("requestBody", {}).get("content", {})
    schema: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return schema


def string_parameters(operation: dict[str, Any], where: str) -> Iterator[str]:
    """Names of the parameters in the path or the query, which are all text on the wire."""
    for parameter in operation.get("parameters", []):
        if parameter["in"] == where:
            yield parameter["name"]


def in_path(text: str) -> str:
    """As one segment."""
    return quote(text, safe="")
