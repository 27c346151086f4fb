"""Lists in pages, by key: stable while rows come, and as fast on the last page as on the first."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

MAX_PAGE: Final = 500
Item = TypeVar("Item", bound=BaseModel)

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items in one page.")]
After = Annotated[
    str, Query(max_length=255, pattern=r"^[^\x00]*$", description="`next` of the page before.")
]


class Page(BaseModel, Generic[Item]):
    """Some items of a list, and where the next page begins."""

    items: list[Item]
    next: str | None = Field(description="Send as `after` for the next page; null on the last.")


def cut_page(items: Sequence[Item], limit: int, key: Callable[[Item], str]) -> Page[Item]:
    """A page of `limit` items out of up to `limit + 1` that were read."""
    shown = list(items[:limit])
    return Page(items=shown, next=key(shown[-1]) if len(items) > limit else None)
