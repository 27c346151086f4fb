"""Ends the services of a supervisor that was killed. Runs as a script, on the standard library.

Reads `+PGID` and `-PGID` lines: process groups that began and ended. When the pipe closes with
groups left, the supervisor is dead; they are asked to stop, and then made to.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

PATIENCE_S = 8.0


class Keeper:
    """The supervisor's end of the pipe."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self._pipe = os.fdopen(writing, "w", buffering=1)
        # A session of its own: a signal to the supervisor's group spares it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=reading, start_new_session=True
        )
        os.close(reading)

    def began(self, group: int) -> None:
        """A service leads this process group."""
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        """The group is no more; its id may come to stand for another."""
        self._tell(f"-{group}\n")

    def dismiss(self) -> None:
        """Close the pipe and wait."""
        with suppress(BrokenPipeError):
            self._pipe.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        # Without a keeper the kernel still ends each service with its parent.
        with suppress(BrokenPipeError):
            self._pipe.write(line)


def alive(group: int) -> bool:
    """Whether a process group still has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def end(groups: set[int]) -> None:
    """Stop process groups: politely, and after PATIENCE_S seconds for good."""
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def main() -> None:
    """Keep the list until the pipe closes."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    end(groups)


if __name__ == "__main__":
    main()
