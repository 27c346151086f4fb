"""Mosquitto's password file: accounts added and replaced while brokers and writers use it.

A line is `user:$7$iterations$salt$hash`, PBKDF2-HMAC-SHA512 (mosquitto_passwd(1)). A new account
is appended, so that ten thousand devices register in seconds; only a replaced one rewrites the
file. Writers of all processes take turns by a lock on a file beside it.
"""

import hashlib
import os
import re
import secrets
import signal
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from zenthos_core.errors import ConfigurationError
from zenthos_core.shared_files import locked, replace_file

ITERATIONS: Final = 1
"""Passwords here are tokens and random strings, which no dictionary holds; the broker hashes
again for every client at each reload, so iterations would cost without adding anything."""

SERVICE_PREFIX: Final = "svc-"
"""Accounts of services; no device is registered under such a name."""

SALT_BYTES: Final = 12
"""Mosquitto 2.0 refuses any other length."""

_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LINE: Final = re.compile(rb"[^:\n]+:\$7\$\d+\$[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]{86}==\n")


def hash_password(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """The `$7$…` field of an account; `salt` is 12 random bytes."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"salt of {len(salt)} bytes; Mosquitto wants {SALT_BYTES}")
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def set_account(path: Path, user: str, password: str) -> None:
    """Add or replace one account."""
    set_accounts(path, {user: password})


def set_accounts(path: Path, passwords: Mapping[str, str]) -> None:
    """Add or replace accounts, by user name; the broker reads them when told to reload.

    Raises:
        ValueError: for a user name that could not stand in the file.
    """
    lines = {_encode_user(user): _line(user, password) for user, password in passwords.items()}
    with locked(path):
        content = path.read_bytes() if path.exists() else b""
        torn = bool(content) and not content.endswith(b"\n")
        if not torn and path.exists() and not any(_holds(content, user) for user in lines):
            _append(path, b"".join(lines.values()))
        else:
            kept = [line for line in content.splitlines(keepends=True) if _keeps(line, lines)]
            replace_file(path, b"".join([*kept, *lines.values()]))


def remove_account(path: Path, user: str) -> None:
    """Remove an account where there is one."""
    name = _encode_user(user)
    with locked(path):
        content = path.read_bytes() if path.exists() else b""
        if _holds(content, name):
            lines = content.splitlines(keepends=True)
            replace_file(path, b"".join(line for line in lines if _keeps(line, {name: b""})))


def reload_broker(pid_file: Path) -> bool:
    """Tell the broker to read its accounts again; False where none is running.

    Raises:
        ConfigurationError: where the broker belongs to another user.
    """
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        raise ConfigurationError(
            f"may not signal the broker (pid {pid}): run both as one user, or unset "
            "ZENTHOS_MQTT_PID_FILE and reload it otherwise"
        ) from None
    return True


def _encode_user(user: str) -> bytes:
    if not _USER.fullmatch(user):
        raise ValueError(f"not a broker user name: {user!r}")
    return user.encode()


def _line(user: str, password: str) -> bytes:
    return f"{user}:{hash_password(password, secrets.token_bytes(SALT_BYTES))}\n".encode()


def _holds(content: bytes, user: bytes) -> bool:
    return content.startswith(user + b":") or b"\n" + user + b":" in content


def _keeps(line: bytes, replaced: Mapping[bytes, bytes]) -> bool:
    """A line torn by a crash, or of an account that is replaced, goes."""
    return _LINE.fullmatch(line) is not None and line.partition(b":")[0] not in replaced


def _append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)
