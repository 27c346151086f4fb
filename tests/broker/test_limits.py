"""How many may connect, and what holds while no more can."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.broker.clients import ACCEPTED, Client, answer, wait_until
from tests.servers import TokenBroker
from zenthos_cli.stack import mosquitto
from zenthos_cli.stack.mosquitto import MAX_OPEN_FILES, Mosquitto
from zenthos_core.revocations import revoke_tokens

DEVICE, OTHER = "field-sensor-001", "field-sensor-002"
FEW = 40


@pytest.fixture
def small_broker(
    token_programs: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TokenBroker]:
    """One that may open few files."""
    monkeypatch.setattr(mosquitto, "MAX_OPEN_FILES", FEW)
    server = TokenBroker(tmp_path / "broker", token_programs)
    server.start()
    yield server
    server.stop()


@contextmanager
def crowded(broker: TokenBroker) -> Iterator[None]:
    """More connections than it may have, of clients that say nothing."""
    with ExitStack() as stack:
        for _ in range(FEW + 10):
            stack.enter_context(socket.create_connection((broker.host, broker.port)))
        # Debian's Mosquitto asks tcpd, which cannot open its own files then.
        wait_until(lambda: "Unable to accept" in broker.log or "denied access" in broker.log)
        yield


def comes_in(broker: TokenBroker, name: str) -> bool:
    try:
        return answer(broker, name, broker.token(name)) == ACCEPTED
    except OSError:  # closed before a word was said
        return False


def test_the_broker_may_open_so_many_files_and_no_more(token_broker: TokenBroker) -> None:
    lines = Path(f"/proc/{token_broker.pid}/limits").read_text().splitlines()
    soft = next(line.split()[3] for line in lines if line.startswith("Max open files"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(soft) == (MAX_OPEN_FILES if hard < 0 else min(MAX_OPEN_FILES, hard))


def test_a_connection_too_many_is_closed_and_the_others_stay(small_broker: TokenBroker) -> None:
    with Client(small_broker, DEVICE, small_broker.token(DEVICE)) as present:
        with crowded(small_broker):
            assert not comes_in(small_broker, OTHER)
            assert present.connected
        wait_until(lambda: comes_in(small_broker, OTHER))
        assert present.connected


def test_what_is_revoked_in_a_crowd_is_not_forgotten(
    small_broker: TokenBroker,
) -> None:
    with Client(small_broker, DEVICE, small_broker.token(DEVICE)) as client:
        with crowded(small_broker):
            revoke_tokens(small_broker.revocations_file, [DEVICE], now=time.time())
            time.sleep(1.5)
        wait_until(lambda: client.ended is not None)
