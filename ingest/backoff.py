"""How long to wait before the next try."""

import random
from collections.abc import Iterator
from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 10.0


def delays_s(uniform: random.Random | None = None) -> Iterator[float]:
    """Doubling from 0.1 s to 10 s, each shortened by up to half so that workers spread out."""
    source = uniform or random.Random()
    ceiling = FIRST_S
    while True:
        yield ceiling * source.uniform(0.5, 1)
        ceiling = min(2 * ceiling, LONGEST_S)
