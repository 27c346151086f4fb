"""A process id is not a process: after a crash or power cut it may be another's."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zenthos_cli.stack.control import Stack
from zenthos_cli.stack.plan import State
from zenthos_cli.stack.state import (
    Process,
    ServiceStatus,
    StackFiles,
    StackStatus,
    end_leftovers,
)


class Silent:
    """A display that shows nothing."""

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    def say(self, text: str) -> None:
        pass

    def show(self, status: StackStatus) -> None:
        pass


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def status_with(process: Process) -> StackStatus:
    service = ServiceStatus(state=State.READY, process=process)
    return StackStatus(supervisor=process, started=0, services={"ota-api": service})


def test_a_process_that_ended_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process.alive()
    sleeper.kill()
    while sleeper.poll() is None:
        time.sleep(0.01)
    assert not process.alive()


def test_leftovers_are_ended(sleeper: subprocess.Popen[bytes]) -> None:
    status = status_with(Process.of(sleeper.pid))
    assert end_leftovers(status, patience_s=5) == ["ota-api"]
    assert sleeper.wait(5) != 0
    assert end_leftovers(status, patience_s=5) == []


def test_another_process_of_a_stale_id_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    stale = Process(sleeper.pid, Process.of(sleeper.pid).start_ticks - 1)
    assert end_leftovers(status_with(stale), patience_s=5) == []
    assert sleeper.poll() is None


def test_down_after_a_power_cut_stops_nobody(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    stack = Stack(tmp_path)
    files = stack.files()
    files.home.mkdir()
    files.lock.touch()
    files.write_status(status_with(Process(sleeper.pid, 1)))
    assert stack.status() is None
    assert stack.down(Silent()) == []
    assert sleeper.poll() is None


def test_one_lock_for_one_stack(tmp_path: Path) -> None:
    files = StackFiles(tmp_path)
    assert not files.running()
    lock = files.try_lock()
    assert lock is not None
    assert files.running()
    assert files.try_lock() is None
    lock.close()
    assert not files.running()


@pytest.mark.parametrize("content", [b"", b"{", b'{"services": 1}'])
def test_a_torn_status_is_no_status(tmp_path: Path, content: bytes) -> None:
    files = StackFiles(tmp_path)
    files.status.write_bytes(content)
    assert files.read_status() is None
