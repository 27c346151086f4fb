"""What may be done with users.

1. A name is never given twice, not even after its user was disabled: the audit log names users.
2. Disabling a user, or another password or role, ends the user's sessions at once.
3. A disabled user stays disabled.
"""

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.sessions.repository import SessionRepository
from ota_api.users.repository import UserRepository
from ota_api.users.schemas import USER_NAME, User, UserRole
from zenthos_core.broker_accounts import SERVICE_PREFIX
from zenthos_core.errors import ConflictError, InvalidInputError, NotFoundError
from zenthos_core.passwords import hash_password


async def create_user(
    users: UserRepository, trail: AuditTrail, name: str, role: UserRole, password: str
) -> User:
    """A new user.

    Raises:
        InvalidInputError: for a name or password that cannot be used.
        ConflictError: by rule 1.
    """
    if not USER_NAME.fullmatch(name) or name.startswith(SERVICE_PREFIX):
        raise InvalidInputError(
            f"{name!r} cannot name a user: use 2 to 64 of a-z, 0-9 and ._@+-, a letter or digit"
            f" first, and not {SERVICE_PREFIX}, which names services"
        )
    user = await users.insert(name, role, hash_password(password))
    if user is None:
        raise ConflictError(f"there is, or was, a user {name}: choose another name")
    await trail.record(Action.USER_CREATE, f"user {name}", after={"role": role})
    return user


async def disable_user(
    users: UserRepository, sessions: SessionRepository, trail: AuditTrail, name: str
) -> bool:
    """Rule 2; whether the user was not disabled before."""
    user = await _find(users, name)
    if user.disabled_at is not None:
        return False
    await users.disable(user.id)
    ended = await sessions.end_all(user.id, "disabled")
    await trail.record(Action.USER_DISABLE, f"user {name}", after={"sessions_ended": ended})
    return True


async def change_password(
    users: UserRepository,
    sessions: SessionRepository,
    trail: AuditTrail,
    name: str,
    password: str,
) -> None:
    """Rule 2.

    Raises:
        ConflictError: for a disabled user.
    """
    user = await _find(users, name)
    if user.disabled_at is not None:
        raise ConflictError(f"user {name} is disabled: create one of another name")
    await users.set_password(user.id, hash_password(password))
    ended = await sessions.end_all(user.id, "password_changed")
    await trail.record(Action.USER_PASSWORD, f"user {name}", after={"sessions_ended": ended})


async def change_role(
    users: UserRepository, sessions: SessionRepository, trail: AuditTrail, name: str, role: UserRole
) -> bool:
    """Rule 2: tokens name the role. Whether the user had another before.

    Raises:
        ConflictError: for a disabled user.
    """
    user = await _find(users, name)
    if user.disabled_at is not None:
        raise ConflictError(f"user {name} is disabled: create one of another name")
    if user.role == role:
        return False
    await users.set_role(user.id, role)
    ended = await sessions.end_all(user.id, "role_changed")
    after = {"role": role, "sessions_ended": ended}
    await trail.record(Action.USER_ROLE, f"user {name}", before={"role": user.role}, after=after)
    return True


async def _find(users: UserRepository, name: str) -> User:
    user = await users.find_and_lock(name)
    if user is None:
        raise NotFoundError(f"no user {name}: `zenthos user list` shows them")
    return user
