"""How a server is started: it dies with its parent, and never runs as root.

`setpriv` (util-linux, essential on Debian and Ubuntu) sets both up and then becomes the server, so
the process id is the server's own.
"""

import os
import pwd
import resource
import shutil
from pathlib import Path
from signal import Signals
from typing import Final

from zenthos_core.errors import ConfigurationError

SERVICE_USER: Final = "nobody"

# Bits of capabilities(7). Either lets the service user reach a folder below root's home;
# containers often keep only the second.
_CAPABILITIES: Final = (("dac_read_search", 2), ("dac_override", 1))


def child_command(argv: list[str], *, death_signal: Signals) -> list[str]:
    """`argv`, sent `death_signal` by the kernel should its parent die (PR_SET_PDEATHSIG)."""
    return [_setpriv(), "--pdeathsig", death_signal.name, *argv]


def server_command(argv: list[str], *, death_signal: Signals) -> list[str]:
    """As `child_command`, and as the service user where root starts it (Postgres refuses root)."""
    return [_setpriv(), *_as_service_user(), "--pdeathsig", death_signal.name, *argv]


def tool_command(argv: list[str]) -> list[str]:
    """A short-lived command as the service user where root starts it."""
    return [_setpriv(), *_as_service_user(), *argv]


def limited_command(argv: list[str], *, open_files: int) -> list[str]:
    """`argv`, allowed that many open files, or as many as the system lets us have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = open_files if hard == resource.RLIM_INFINITY else min(open_files, hard)
    return [_util_linux("prlimit"), f"--nofile={most}:", *argv]


def give_to_service_user(path: Path) -> None:
    """Make a file or folder the service user's own; nothing to do for an ordinary user."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(SERVICE_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def _as_service_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(SERVICE_USER)
    flags = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    capability = _search_capability()
    if capability:
        flags += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
    return flags


def _search_capability() -> str | None:
    lines = Path("/proc/self/status").read_text().splitlines()
    bounding = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:"))
    return next((name for name, bit in _CAPABILITIES if bounding >> bit & 1), None)


def _setpriv() -> str:
    return _util_linux("setpriv")


def _util_linux(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ConfigurationError(f"{name} is missing: install the package util-linux")
    return path
