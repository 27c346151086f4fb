"""Whether a token that verifies still holds.

1. A device's holds while the device is registered and in use, unless its tokens were voided after
   it was issued.
2. A user's holds while its session has not ended and the user is not disabled.
3. A service's (of a user's role, without a session) holds until it expires or its key is replaced.

The database is asked with each request: what ended a moment ago has ended, in every worker.
"""

from datetime import datetime
from uuid import UUID

from psycopg import AsyncConnection

from zenthos_core.errors import AuthenticationError, PermissionDeniedError
from zenthos_core.tokens import Identity, Role

_DEVICE = "SELECT decommissioned_at IS NULL, tokens_valid_from FROM devices WHERE id = %s"
_SESSION = (
    "SELECT FROM sessions s JOIN users u ON u.id = s.user_id"
    " WHERE s.id = %s AND s.ended_at IS NULL AND u.disabled_at IS NULL AND u.name = %s"
)


async def check_standing(connection: AsyncConnection, identity: Identity) -> None:
    """Rules 1 to 3.

    Raises:
        AuthenticationError: for a token that is void.
        PermissionDeniedError: for a device that is not in use.
    """
    if identity.role is Role.DEVICE:
        await _check_device(connection, identity)
    elif identity.session is not None:
        await _check_session(connection, identity.subject, identity.session)


def check_device(identity: Identity, *, in_use: bool, tokens_valid_from: datetime | None) -> None:
    """Rule 1, for who has read the device's row; the errors of check_standing."""
    if not in_use:
        raise PermissionDeniedError(f"device {identity.subject} is decommissioned")
    if tokens_valid_from is not None and identity.issued_at < tokens_valid_from.timestamp():
        raise AuthenticationError("token revoked: have the device registered again")


async def _check_device(connection: AsyncConnection, identity: Identity) -> None:
    cursor = await connection.execute(_DEVICE, (identity.subject,))
    row = await cursor.fetchone()
    if row is None:
        raise PermissionDeniedError(f"device {identity.subject} is not registered any more")
    in_use, tokens_valid_from = row
    check_device(identity, in_use=in_use, tokens_valid_from=tokens_valid_from)


async def _check_session(connection: AsyncConnection, user: str, session: str) -> None:
    cursor = await connection.execute(_SESSION, (UUID(session), user))
    if await cursor.fetchone() is None:
        raise AuthenticationError("this session has ended: log in again")
