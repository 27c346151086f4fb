"""A broker for the tests of a module that leave no trace in it."""

from collections.abc import Iterator

import pytest

from tests.broker.clients import Client
from tests.servers import TokenBroker
from zenthos_cli.stack.mosquitto import Mosquitto
from zenthos_core.broker_accounts import set_account

PLATFORM = "svc-platform"
PASSWORD = "platform"


@pytest.fixture(scope="module")
def shared_broker(
    token_programs: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TokenBroker]:
    """Checks device tokens; whatever happened to it, it must still run at the end."""
    server = TokenBroker(tmp_path_factory.mktemp("broker"), token_programs)
    set_account(server.broker.password_file, PLATFORM, PASSWORD)
    with (server.broker.folder / "acl").open("a") as acl:
        acl.write(f"\nuser {PLATFORM}\ntopic readwrite zenthos/#\n")
    server.start()
    pid = server.pid
    yield server
    assert server.pid == pid
    assert server.broker.accepts_connections()
    server.stop()


@pytest.fixture
def platform(shared_broker: TokenBroker) -> Iterator[Client]:
    """A service that may publish anything, and receives what anyone may publish."""
    with Client(shared_broker, PLATFORM, PASSWORD) as client:
        assert client.subscribe("zenthos/#") == 1
        yield client
