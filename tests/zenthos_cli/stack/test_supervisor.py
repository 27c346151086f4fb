"""The supervisor on small real services: order, restarts, failures; nothing outlives it."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.zenthos_cli.stack.processes import processes_with, wait_until
from zenthos_cli.stack.launch import child_command
from zenthos_cli.stack.plan import Service, State
from zenthos_cli.stack.state import StackFiles, StackStatus
from zenthos_cli.stack.supervisor import supervise_in_background

MARKER = "ZENTHOS_TEST_MARKER"


class Stack:
    """A supervisor in the background with services of a test's choosing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = StackFiles(folder)
        self.marker = f"{MARKER}={folder}"
        self.pid = 0

    def start(self, *services: Service) -> None:
        lock = self.files.try_lock()
        assert lock is not None
        with lock:
            self.pid = supervise_in_background(services, self.files, self.folder)

    def script(self, name: str, code: str, *needs: str, **options: object) -> Service:
        """A service that runs a few lines of Python and is ready when its file exists."""
        ready = self.folder / f"{name}.ready"
        command = [sys.executable, "-c", f"from pathlib import Path\n{code}"]
        settings = {"is_ready": ready.exists, "stop_timeout_s": 2.0, **options}
        return Service(
            name=name,
            command=child_command(command, death_signal=signal.SIGTERM),
            environment={MARKER: str(self.folder)},
            needs=needs,
            **settings,  # type: ignore[arg-type]
        )

    def sleeper(self, name: str, *needs: str, **options: object) -> Service:
        """A service that is soon ready and then sleeps."""
        return self.script(name, f"Path('{name}.ready').touch()\n{SLEEP}", *needs, **options)

    def status(self) -> StackStatus:
        status = self.files.read_status()
        assert status is not None
        return status

    def state(self, name: str) -> State | None:
        status = self.files.read_status()
        return status.services[name].state if status else None

    def pid_of(self, name: str) -> int:
        process = self.status().services[name].process
        assert process is not None
        return process.pid

    def alive(self) -> dict[int, str]:
        return processes_with(self.marker)

    def stop(self) -> int:
        """Ask it to stop; returns its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


SLEEP = "import time\ntime.sleep(600)"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    if stack.pid:
        stack.stop()


def events(stack: Stack) -> list[str]:
    """What the supervisor has written of states: `name: state`."""
    lines = stack.files.log("supervisor").read_text().splitlines()
    return [line.split(" INFO ")[1] for line in lines if " INFO " in line]


def ready(stack: Stack) -> bool:
    status = stack.files.read_status()
    return status is not None and status.ready()


def test_a_service_starts_after_and_stops_before_what_it_needs(stack: Stack) -> None:
    task = stack.script("task", "Path('task.ran').touch()", "base", is_task=True)
    stack.start(stack.sleeper("top", "task", "base"), task, stack.sleeper("base"))
    wait_until(lambda: ready(stack), "all ready")
    assert stack.stop() == 0
    order = events(stack)
    starts = [order.index(e) for e in ("base: ready", "task: done", "top: starting", "top: ready")]
    stops = [order.index(e) for e in ("top: stopping", "top: stopped", "base: stopping")]
    assert starts == sorted(starts)
    assert stops == sorted(stops)
    assert stack.alive() == {}


def test_independent_services_start_side_by_side(stack: Stack) -> None:
    stack.start(stack.sleeper("a"), stack.sleeper("b"))
    wait_until(lambda: ready(stack), "all ready")
    assert set(events(stack)[:2]) == {"a: starting", "b: starting"}


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM])
def test_a_service_that_dies_is_started_again(stack: Stack, with_signal: signal.Signals) -> None:
    stack.start(stack.sleeper("a"), stack.sleeper("b"))
    wait_until(lambda: ready(stack), "all ready")
    killed, other = stack.pid_of("a"), stack.pid_of("b")
    os.kill(killed, with_signal)
    wait_until(lambda: stack.status().services["a"].restarts == 1, "restart counted")
    wait_until(lambda: ready(stack), "ready again")
    assert stack.pid_of("a") != killed
    assert stack.pid_of("b") == other
    assert stack.status().services["b"].restarts == 0


def test_what_a_dead_service_had_started_is_ended_before_its_restart(stack: Stack) -> None:
    code = f"""import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
Path("a.child").write_text(str(child.pid))
Path("a.ready").touch()
{SLEEP}"""
    stack.start(stack.script("a", code))
    wait_until(lambda: ready(stack), "ready")
    child = int((stack.folder / "a.child").read_text())
    os.kill(stack.pid_of("a"), signal.SIGKILL)
    wait_until(lambda: stack.status().services["a"].restarts == 1, "restart counted")
    wait_until(lambda: child not in stack.alive(), "child killed")
    wait_until(lambda: ready(stack), "ready again")


def test_a_service_that_fails_at_its_start_ends_the_stack_with_its_words(stack: Stack) -> None:
    bad = stack.script("bad", "raise SystemExit('no such database')", "good")
    stack.start(stack.sleeper("good"), bad)
    assert stack.wait() == 1
    error = stack.status().error
    assert error is not None
    assert "bad stopped with exit code 1" in error
    assert "no such database" in error
    assert str(stack.files.log("bad")) in error
    assert stack.state("bad") is State.FAILED
    assert stack.state("good") is State.STOPPED
    assert stack.alive() == {}


def test_a_service_that_is_never_ready_ends_the_stack(stack: Stack) -> None:
    stack.start(stack.script("slow", f"print('still busy')\n{SLEEP}", start_timeout_s=5.0))
    assert stack.wait() == 1
    error = stack.status().error
    assert error is not None
    assert "slow was not ready within 5 s" in error
    assert "still busy" in error
    assert stack.alive() == {}


def test_a_program_that_cannot_be_run_ends_the_stack(stack: Stack) -> None:
    stack.start(stack.sleeper("good"), Service(name="bad", command=["/no/such/program"]))
    assert stack.wait() == 1
    assert "/no/such/program" in (stack.status().error or "")
    assert stack.alive() == {}


def test_a_task_that_fails_ends_the_stack(stack: Stack) -> None:
    stack.start(stack.script("task", "raise SystemExit(3)", is_task=True))
    assert stack.wait() == 1
    assert "task failed with exit code 3" in (stack.status().error or "")


def test_a_service_that_will_not_stop_is_made_to(stack: Stack) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code = f"{deaf}Path('deaf.ready').touch()\n{SLEEP}"
    stack.start(stack.script("deaf", code, stop_timeout_s=0.5))
    wait_until(lambda: ready(stack), "ready")
    assert stack.stop() == 0
    assert stack.alive() == {}


def test_a_stop_in_the_middle_of_a_start_leaves_nothing(stack: Stack) -> None:
    slow = stack.script("slow", SLEEP, "base")
    stack.start(stack.sleeper("base"), slow, stack.sleeper("top", "slow"))
    wait_until(lambda: stack.state("slow") is State.STARTING, "slow starting")
    assert stack.stop() == 0
    assert stack.state("top") is State.STOPPED
    assert "top: starting" not in events(stack)
    assert stack.alive() == {}


@pytest.mark.fault
def test_nothing_outlives_a_killed_supervisor(stack: Stack) -> None:
    code = f"""import subprocess, sys
subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
Path("parent.ready").touch()
{SLEEP}"""
    stack.start(stack.sleeper("a"), stack.script("parent", code))
    wait_until(lambda: ready(stack), "ready")
    assert len(stack.alive()) == 3
    os.kill(stack.pid, signal.SIGKILL)
    stack.wait()
    wait_until(lambda: not stack.alive(), "all ended")
    assert not stack.files.running()


@pytest.mark.fault
def test_services_die_with_the_supervisor_even_without_a_keeper(stack: Stack) -> None:
    stack.start(stack.sleeper("a"))
    wait_until(lambda: ready(stack), "ready")
    for pid in _children(stack.pid):
        if "keeper" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    os.kill(stack.pid, signal.SIGKILL)
    stack.wait()
    wait_until(lambda: not stack.alive(), "all ended")


def _children(pid: int) -> Sequence[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
