"""Accounts at the broker: Mosquitto's password file, `user:$7$iterations$salt$hash` a line.

PBKDF2 with SHA-512, as mosquitto_passwd writes it. Passwords here are tokens or random words, which
nobody can guess, so that few iterations do; each connection to the broker costs one computation.
"""

import fcntl
import hashlib
import os
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ITERATIONS: Final = 101
SALT_BYTES: Final = 12


def hash_password(password: str, salt: bytes) -> str:
    """Mosquitto's notation of a salted PBKDF2-SHA512 hash."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"$7${ITERATIONS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def set_accounts(path: Path, passwords: Mapping[str, str]) -> None:
    """Add users, or change their passwords; readers see the file old or new, whole."""
    new = {
        user: hash_password(password, secrets.token_bytes(SALT_BYTES))
        for user, password in passwords.items()
    }
    with _locked(path):
        accounts = _read(path) | new
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
            ) as file:
                file.writelines(f"{user}:{hashed}\n" for user, hashed in accounts.items())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def set_account(path: Path, user: str, password: str) -> None:
    """Add a user, or change the password."""
    set_accounts(path, {user: password})


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {user: hashed for user, _, hashed in (line.partition(":") for line in lines)}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, over all processes."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
