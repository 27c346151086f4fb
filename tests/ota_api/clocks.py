"""A clock that tests set, and a way to run what never waits."""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any


@dataclass
class Clock:
    """Epoch seconds."""

    now: float

    def __call__(self) -> float:
        return self.now


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
