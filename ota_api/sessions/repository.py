"""Sessions and their refresh tokens in the operational database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ota_api.users.schemas import UserRole

EndReason = Literal["logout", "token_reused", "disabled", "password_changed", "role_changed"]


@dataclass(frozen=True)
class StoredRefresh:
    """A refresh token, its session and the session's user."""

    session_id: UUID
    user_name: str
    role: UserRole
    expires_at: datetime
    used: bool
    ended: bool


class SessionRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def start(self, user_id: UUID, started: datetime, expires: datetime) -> UUID:
        """A new session; what of the user's has expired goes."""
        await self._connection.execute(
            "DELETE FROM sessions WHERE user_id = %s AND expires_at < %s", (user_id, started)
        )
        cursor = await self._connection.execute(
            "INSERT INTO sessions (user_id, started_at, expires_at) VALUES (%s, %s, %s)"
            " RETURNING id",
            (user_id, started, expires),
        )
        row = await cursor.fetchone()
        assert row is not None, "INSERT … RETURNING returns a row"  # noqa: S101
        return UUID(str(row[0]))

    async def add_refresh(
        self, session_id: UUID, token_hash: bytes, issued: datetime, expires: datetime
    ) -> None:
        """A token of the session, which lasts as long as its last one; what has expired goes once
        it has been so for as long as one lasts: until then its reuse is known as such."""
        await self._connection.execute(
            "DELETE FROM refresh_tokens WHERE session_id = %s AND expires_at < %s",
            (session_id, issued - (expires - issued)),
        )
        await self._connection.execute(
            "INSERT INTO refresh_tokens (token_hash, session_id, issued_at, expires_at)"
            " VALUES (%s, %s, %s, %s)",
            (token_hash, session_id, issued, expires),
        )
        await self._connection.execute(
            "UPDATE sessions SET expires_at = %s WHERE id = %s", (expires, session_id)
        )

    async def find_refresh_and_lock(self, token_hash: bytes) -> StoredRefresh | None:
        """By hash; others that use the session wait until the transaction ends."""
        await self._connection.execute(
            "SELECT FROM sessions WHERE id ="
            " (SELECT session_id FROM refresh_tokens WHERE token_hash = %s) FOR UPDATE",
            (token_hash,),
        )
        async with self._connection.cursor(row_factory=class_row(StoredRefresh)) as cursor:
            await cursor.execute(
                "SELECT r.session_id, u.name AS user_name, u.role, r.expires_at,"
                " r.used_at IS NOT NULL AS used,"
                " s.ended_at IS NOT NULL OR u.disabled_at IS NOT NULL AS ended"
                " FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id"
                " JOIN users u ON u.id = s.user_id WHERE r.token_hash = %s",
                (token_hash,),
            )
            return await cursor.fetchone()

    async def use_refresh(self, token_hash: bytes, now: datetime) -> None:
        """It has had its one use."""
        await self._connection.execute(
            "UPDATE refresh_tokens SET used_at = %s WHERE token_hash = %s", (now, token_hash)
        )

    async def end(self, session_id: UUID, reason: EndReason) -> bool:
        """Whether it had not ended before."""
        cursor = await self._connection.execute(
            "UPDATE sessions SET ended_at = now(), end_reason = %s"
            " WHERE id = %s AND ended_at IS NULL",
            (reason, session_id),
        )
        return cursor.rowcount == 1

    async def end_all(self, user_id: UUID, reason: EndReason) -> int:
        """Sessions of a user that had not ended before: how many."""
        cursor = await self._connection.execute(
            "UPDATE sessions SET ended_at = now(), end_reason = %s"
            " WHERE user_id = %s AND ended_at IS NULL",
            (reason, user_id),
        )
        return cursor.rowcount
