"""Users in the operational database."""

from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from ota_api.users.schemas import User, UserRole

_COLUMNS: Final = "id, name, role, created_at, disabled_at"


class UserRepository:
    """Works within the transaction of its connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def insert(self, name: str, role: UserRole, password_hash: str) -> User | None:
        """The new user, or None where there is one of that name."""
        return await self._one(
            "INSERT INTO users (name, role, password_hash) VALUES (%s, %s, %s)"
            f" ON CONFLICT (name) DO NOTHING RETURNING {_COLUMNS}",
            (name, role, password_hash),
        )

    async def find_and_lock(self, name: str) -> User | None:
        """By name, keeping others from changing the user until the transaction ends."""
        return await self._one(f"SELECT {_COLUMNS} FROM users WHERE name = %s FOR UPDATE", (name,))

    async def find_unchanged(self, name: str, password_hash: str) -> User | None:
        """A user who is not disabled and has still that password, until the transaction ends."""
        return await self._one(
            f"SELECT {_COLUMNS} FROM users WHERE name = %s AND password_hash = %s"
            " AND disabled_at IS NULL FOR SHARE",
            (name, password_hash),
        )

    async def password_hash(self, name: str) -> str | None:
        """Of a user who is not disabled."""
        cursor = await self._connection.execute(
            "SELECT password_hash FROM users WHERE name = %s AND disabled_at IS NULL", (name,)
        )
        row = await cursor.fetchone()
        return row[0] if row else None

    async def disable(self, user_id: UUID) -> None:
        """For good."""
        await self._connection.execute(
            "UPDATE users SET disabled_at = now() WHERE id = %s", (user_id,)
        )

    async def set_password(self, user_id: UUID, password_hash: str) -> None:
        """In the place of the one before."""
        await self._connection.execute(
            "UPDATE users SET password_hash = %s WHERE id = %s", (password_hash, user_id)
        )

    async def set_role(self, user_id: UUID, role: UserRole) -> None:
        """In the place of the one before."""
        await self._connection.execute("UPDATE users SET role = %s WHERE id = %s", (role, user_id))

    async def page(self, after: str, limit: int) -> list[User]:
        """Users by name, from the first after `after`."""
        async with self._connection.cursor(row_factory=class_row(User)) as cursor:
            await cursor.execute(
                f"SELECT {_COLUMNS} FROM users WHERE name > %s ORDER BY name LIMIT %s",
                (after, limit),
            )
            return await cursor.fetchall()

    async def _one(self, query: str, values: tuple[Any, ...]) -> User | None:
        async with self._connection.cursor(row_factory=class_row(User)) as cursor:
            await cursor.execute(query.encode(), values)
            return await cursor.fetchone()
