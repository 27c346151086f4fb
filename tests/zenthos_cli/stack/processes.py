"""Finding and waiting for processes that a test has started, directly or not."""

import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 180.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait, at most PATIENCE_S seconds, for a condition to hold."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def processes_with(marker: str) -> dict[int, str]:
    """Command lines of the living processes that have `marker` in their environment, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if command and marker.encode() in variables:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
