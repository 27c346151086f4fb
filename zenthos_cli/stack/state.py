"""What the stack is doing, in `.zenthos/stack.json`, and who is doing it.

A process is known by its id and its start time, so that an id in use again after a crash or power
cut is never taken for ours. Whether a stack runs is decided by a file lock alone, which the kernel
releases with the supervisor's death.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from signal import Signals
from typing import IO, Final

import msgspec

from zenthos_cli.stack.plan import UP, State

_START_TIME_FIELD: Final = 19
"""Field 22 of /proc/PID/stat (proc(5)), counted from after the name in parentheses."""


class Process(msgspec.Struct, frozen=True):
    """A process, told apart from a later one of the same id."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this id now; ProcessLookupError where there is none."""
        return cls(pid, _stat(pid)[1])

    def alive(self) -> bool:
        """Whether it still runs."""
        try:
            state, start_ticks = _stat(self.pid)
        except ProcessLookupError:
            return False
        return start_ticks == self.start_ticks and state != "Z"


def _stat(pid: int) -> tuple[str, int]:
    """State and start time of a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    state, *fields = stat.rpartition(")")[2].split()
    return state, int(fields[_START_TIME_FIELD - 1])


class ServiceStatus(msgspec.Struct, kw_only=True):
    """One service as `zenthos status` shows it. `since` is when it came into its state, epoch s."""

    state: State = State.WAITING
    port: int | None = None
    process: Process | None = None
    since: float = 0.0
    restarts: int = 0
    took_s: float | None = None
    """How long its last start took."""


class StackStatus(msgspec.Struct, kw_only=True):
    """The whole stack."""

    supervisor: Process
    started: float
    services: dict[str, ServiceStatus]
    error: str | None = None
    """Why the start failed."""

    def ready(self) -> bool:
        """Whether every service is."""
        return all(service.state in UP for service in self.services.values())


class StackFiles:
    """The files of one stack."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.status = home / "stack.json"
        self.lock = home / "stack.lock"
        self.logs = home / "logs"

    def log(self, service: str) -> Path:
        """Log file of a service."""
        return self.logs / f"{service}.log"

    def try_lock(self) -> IO[bytes] | None:
        """Take the lock that a running stack holds, or None where one runs."""
        file = self.lock.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def running(self) -> bool:
        """Whether a stack runs, starts or stops."""
        if not self.lock.exists():
            return False
        lock = self.try_lock()
        if lock is None:
            return True
        lock.close()
        return False

    def read_status(self) -> StackStatus | None:
        """The last status written, or None where there is none that can be read."""
        try:
            return msgspec.json.decode(self.status.read_bytes(), type=StackStatus)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write_status(self, status: StackStatus) -> None:
        """Replace the status; readers see the old or the new, whole."""
        partial = self.status.with_suffix(".partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(status)))
        partial.replace(self.status)


def end_leftovers(status: StackStatus, *, patience_s: float) -> list[str]:
    """End what a supervisor that died left running; returns the names of those services."""
    left = {
        name: service.process
        for name, service in status.services.items()
        if service.process is not None and service.process.alive()
    }
    for process in left.values():
        _signal_group(process, Signals.SIGTERM)
    deadline = time.monotonic() + patience_s
    while any(p.alive() for p in left.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left.values():
        if process.alive():
            _signal_group(process, Signals.SIGKILL)
    return sorted(left)


def _signal_group(process: Process, signal: Signals) -> None:
    """Each service leads a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal)
