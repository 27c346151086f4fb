"""The processes of a bench: helpers of its own, and what the kernel tells about any of them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zenthos_core.errors import ZenthosError

READY: Final = "ready"
END_S: Final = 60.0
IDLE_SHARE: Final = 0.1
"""Of one core: what a process may use that waits, looks after its health and retries."""

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class BenchError(ZenthosError):
    """A benchmark could not be carried through."""


class Helper:
    """`python -m MODULE ARGUMENTS`: says that it is ready, then follows its standard input."""

    def __init__(self, module: str, arguments: tuple[object, ...]) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None  # noqa: S101  (both are pipes)
        assert self._process.stdout is not None  # noqa: S101
        self._input, self._output = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def await_ready(self) -> None:
        """Wait for its first line."""
        if self._output.readline().strip() != READY:
            raise BenchError(f"{self._module} did not start; its error is above")

    def tell(self, line: object) -> None:
        """Write a line to its standard input."""
        self._input.write(f"{line}\n")
        self._input.flush()

    def read_line(self) -> str:
        """The next line that it writes; BenchError where it has ended."""
        if not (line := self._output.readline()):
            raise BenchError(f"{self._module} ended; its error is above")
        return line

    def finish(self, timeout_s: float = END_S) -> str:
        """What it has written when it ends by itself; the end of its input tells it to."""
        self._input.close()
        try:
            code = self._process.wait(timeout_s)  # a helper writes less than a pipe holds
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._module} did not end within {timeout_s:.0f} s") from None
        if code:
            raise BenchError(f"{self._module} failed; its error is above")
        return self._output.read()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._input.close()
        self._output.close()


@contextmanager
def helpers(module: str, *calls: tuple[object, ...]) -> Iterator[list[Helper]]:
    """One helper for each tuple of arguments, all ready."""
    started = [Helper(module, arguments) for arguments in calls]
    try:
        for helper in started:
            helper.await_ready()
        yield started
    finally:
        for helper in started:
            helper.kill()


def report_ready() -> Iterator[str]:
    """In a helper: say that it is ready; gives what the bench then tells it."""
    print(READY, flush=True)
    return iter(sys.stdin.readline, "")


def wait_for_release() -> None:
    """In a helper: say that it is ready, and return once its standard input ends."""
    for _ in report_ready():
        pass


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Memory that a process has in use."""
    return _status_mib(pid, "VmRSS")


def peak_rss_mib(pid: int) -> float:
    """The most memory that a process has had in use."""
    return _status_mib(pid, "VmHWM")


def _status_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields: Mapping[str, str] = dict(line.split(":", 1) for line in lines)
    return round(int(fields[name].split()[0]) / 1024, 1)


def await_idle(pid: int, *, for_s: float = 2.0, timeout_s: float = 600.0) -> None:
    """Wait until a process does next to nothing for so long."""
    deadline = time.monotonic() + timeout_s
    used_s = for_s
    while used_s > IDLE_SHARE * for_s:
        if time.monotonic() > deadline:
            raise BenchError(f"process {pid} did not come to rest within {timeout_s:.0f} s")
        before = cpu_s(pid)
        time.sleep(for_s)
        used_s = cpu_s(pid) - before
