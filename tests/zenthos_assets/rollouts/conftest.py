"""An operational database to write rows into."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.zenthos_assets.rollouts.rows import Rows


@pytest.fixture
def rows(ops_url: str) -> Iterator[Rows]:
    """Rows of this test's own."""
    with psycopg.connect(ops_url, autocommit=True, options="-c timezone=UTC") as connection:
        yield Rows(connection)
