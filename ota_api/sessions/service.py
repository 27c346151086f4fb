"""Logging in, going on, logging out.

1. An unknown name, a disabled user and a wrong password get the same answer in the same time.
2. An access token lasts 7 days, a refresh token 30; each refresh gives a new pair.
3. A refresh token is good for one use. One that comes again was copied: its session ends, whoever
   holds the newer one.
4. A session that has ended gives no tokens, and those it gave are void at once.
5. Scopes follow the role: a viewer reads, an operator may also roll back, an admin also publish.
6. Refresh tokens are stored as SHA-256 alone: they are random, no dictionary holds them.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from anyio import to_thread

from ota_api.audit.repository import AuditRepository
from ota_api.audit.schemas import Action
from ota_api.audit.service import Actor, AuditTrail
from ota_api.limits.rates import network_of
from ota_api.resources import Resources
from ota_api.sessions.repository import SessionRepository, StoredRefresh
from ota_api.sessions.schemas import Credentials, SessionTokens
from ota_api.users.repository import UserRepository
from ota_api.users.schemas import UserRole
from zenthos_core import tokens
from zenthos_core.errors import AuthenticationError, PermissionDeniedError
from zenthos_core.passwords import verify_password
from zenthos_core.tokens import Identity, Role

ACCESS_S: Final = 7 * 86_400
REFRESH_S: Final = 30 * 86_400
SCOPES: Final[dict[UserRole, list[str]]] = {
    "admin": ["read", "publish", "rollback"],
    "operator": ["read", "rollback"],
    "viewer": ["read"],
}
REFUSED: Final = "the name or the password is wrong"
SPENT: Final = "this refresh token is not good any more: log in again"


async def verify_credentials(resources: Resources, given: Credentials, address: str) -> str:
    """The hash that the password matches; holds no database connection meanwhile.

    Raises:
        AuthenticationError: by rule 1.
        ThrottledError: after too many failures.
    """
    attempts = (
        (resources.throttles.login_by_address, network_of(address)),
        (resources.throttles.login_by_account, given.username),
    )
    for throttle, key in attempts:
        await throttle.begin(key)
    async with resources.pool.connection() as connection:
        stored = await UserRepository(connection).password_hash(given.username)
    matches = await to_thread.run_sync(
        verify_password, stored, given.password, limiter=resources.hashing
    )
    if stored is None or not matches:
        raise AuthenticationError(REFUSED)
    for throttle, key in attempts:
        await throttle.succeed(key)
    return stored


async def log_in(
    resources: Resources,
    users: UserRepository,
    sessions: SessionRepository,
    entries: AuditRepository,
    verified: tuple[str, str],
) -> SessionTokens:
    """A session of a user, by name and password hash, that were verified a moment ago."""
    name, password_hash = verified
    user = await users.find_unchanged(name, password_hash)
    if user is None:
        raise AuthenticationError(REFUSED)
    now = datetime.fromtimestamp(resources.clock(), UTC)
    session = await sessions.start(user.id, now, now + timedelta(seconds=REFRESH_S))
    trail = AuditTrail(entries, Actor(name, user.role, str(session)))
    await trail.record(Action.SESSION_START, f"user {name}")
    return await _issue(resources, sessions, session, name, user.role)


async def refresh(
    resources: Resources, sessions: SessionRepository, entries: AuditRepository, token: str
) -> SessionTokens | None:
    """The next pair, or None where a token came again and so ended its session: commit that.

    Raises:
        AuthenticationError: for a token that is unknown or expired, or whose session has ended.
    """
    token_hash = _hash(token)
    found = await sessions.find_refresh_and_lock(token_hash)
    now = datetime.fromtimestamp(resources.clock(), UTC)
    if found is None or found.ended:
        raise AuthenticationError(SPENT)
    trail = AuditTrail(entries, Actor(found.user_name, found.role, str(found.session_id)))
    if found.used:
        await _end_reused(sessions, trail, found)
        return None
    if found.expires_at <= now:
        raise AuthenticationError(SPENT)
    await sessions.use_refresh(token_hash, now)
    await trail.record(Action.SESSION_REFRESH, f"user {found.user_name}")
    return await _issue(resources, sessions, found.session_id, found.user_name, found.role)


async def log_out(sessions: SessionRepository, trail: AuditTrail, identity: Identity) -> None:
    """Rule 4.

    Raises:
        PermissionDeniedError: for a service's token, which belongs to no session.
    """
    if identity.session is None:
        raise PermissionDeniedError("this token belongs to no session: it lasts until it expires")
    await sessions.end(UUID(identity.session), "logout")
    await trail.record(
        Action.SESSION_END, f"user {identity.subject}", after={"end_reason": "logout"}
    )


async def _end_reused(sessions: SessionRepository, trail: AuditTrail, found: StoredRefresh) -> None:
    """Rule 3."""
    await sessions.end(found.session_id, "token_reused")
    await trail.record(
        Action.SESSION_END, f"user {found.user_name}", after={"end_reason": "token_reused"}
    )


async def _issue(
    resources: Resources, sessions: SessionRepository, session: UUID, name: str, role: UserRole
) -> SessionTokens:
    now = resources.clock()
    token = secrets.token_urlsafe(32)
    issued, expires = (datetime.fromtimestamp(at, UTC) for at in (now, now + REFRESH_S))
    await sessions.add_refresh(session, _hash(token), issued, expires)
    access = tokens.issue(
        resources.token_keys.private_pem,
        name,
        Role(role),
        now=now,
        valid_s=ACCESS_S,
        scopes=SCOPES[role],
        session=str(session),
    )
    return SessionTokens(
        access_token=access,
        expires_in=ACCESS_S,
        refresh_token=token,
        refresh_expires_in=REFRESH_S,
        role=role,
        scope=" ".join(SCOPES[role]),
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
