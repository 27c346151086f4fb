"""What the demo says when a server goes away. The demo itself is run by tests/test_demo.py."""

import pytest
from pydantic import SecretStr
from rich.console import Console

from tests.servers import find_free_port
from zenthos_cli.demo import run_demo
from zenthos_cli.fleet.summary import Summary
from zenthos_core.errors import ZenthosError
from zenthos_core.settings import Settings


def test_a_database_that_is_away_is_an_error_of_one_line() -> None:
    url = f"postgresql://zenthos@127.0.0.1:{find_free_port()}/zenthos_ops"

    def stream() -> Summary:
        pytest.fail("streamed without a database to count in")

    with pytest.raises(ZenthosError, match=r"the operational database fails: .*refused") as error:
        run_demo(Settings(database_url=SecretStr(url)), stream, Console())
    assert len(str(error.value).splitlines()) == 1
