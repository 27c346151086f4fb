"""Users' passwords: Argon2id (RFC 9106), with parameters and salt in the stored string.

1. A password has 12 to 1024 bytes; nothing else is asked of it (NIST SP 800-63B, 5.1.1).
2. Verifying takes as long for a user who does not exist as for one who does.
"""

from typing import Final

from nacl import exceptions
from nacl.pwhash import argon2id

from zenthos_core.errors import InvalidInputError

MIN_BYTES: Final = 12
MAX_BYTES: Final = 1024
OPERATIONS: Final = argon2id.OPSLIMIT_INTERACTIVE
MEMORY_BYTES: Final = argon2id.MEMLIMIT_INTERACTIVE
"""64 MiB and two passes: above OWASP's least (19 MiB, two), a tenth of a second."""

NOBODY: Final = (
    "$argon2id$v=19$m=65536,t=2,p=1$js98or4MKDwr2zYYhbCZsA"
    "$2UKTFaQyKJ1R4aZMZD2JVGrb+XTqsQ4vN416Mmn8eF8"
)
"""Of a random password that was thrown away, with these parameters."""


def hash_password(password: str) -> str:
    """The string to store.

    Raises:
        InvalidInputError: by rule 1.
    """
    data = password.encode()
    if not MIN_BYTES <= len(data) <= MAX_BYTES:
        raise InvalidInputError(f"a password has {MIN_BYTES} to {MAX_BYTES} bytes: choose another")
    return argon2id.str(data, OPERATIONS, MEMORY_BYTES).decode()


def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password is the one that was hashed; `stored` is None for nobody (rule 2)."""
    try:
        matches = bool(argon2id.verify((stored or NOBODY).encode(), password.encode()))
    except exceptions.InvalidkeyError:
        return False
    return matches and stored is not None
