"""Sessions: users log in, refresh, log out."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from ota_api.audit.repository import AuditRepository
from ota_api.auth import PUBLIC, Trail, User
from ota_api.problems import problem
from ota_api.resources import Opened, Transaction, client_address
from ota_api.sessions.repository import SessionRepository
from ota_api.sessions.schemas import Credentials, Refresh, SessionTokens
from ota_api.sessions.service import SPENT, log_in, log_out, refresh, verify_credentials
from ota_api.users.repository import UserRepository

router = APIRouter(prefix="/auth", tags=["sessions"])


async def _verified(
    request: Request, credentials: Credentials, resources: Opened
) -> tuple[str, str]:
    """Name and password hash; before a transaction begins, since hashing takes its time."""
    stored = await verify_credentials(resources, credentials, client_address(request))
    return credentials.username, stored


@router.post("/login", dependencies=PUBLIC)
async def post_login(
    verified: Annotated[tuple[str, str], Depends(_verified)],
    resources: Opened,
    connection: Transaction,
    response: Response,
) -> SessionTokens:
    """Begin a session with name and password."""
    users, sessions = UserRepository(connection), SessionRepository(connection)
    response.headers["Cache-Control"] = "no-store"
    return await log_in(resources, users, sessions, AuditRepository(connection), verified)


@router.post("/refresh", response_model=SessionTokens, dependencies=PUBLIC)
async def post_refresh(
    given: Refresh, resources: Opened, connection: Transaction, response: Response
) -> SessionTokens | Response:
    """Go on with a session: a new pair of tokens for the refresh token, which is then used up."""
    response.headers["Cache-Control"] = "no-store"
    issued = await refresh(
        resources, SessionRepository(connection), AuditRepository(connection), given.refresh_token
    )
    return issued or problem(HTTPStatus.UNAUTHORIZED, SPENT)


@router.post("/logout", status_code=HTTPStatus.NO_CONTENT)
async def post_logout(identity: User, trail: Trail, connection: Transaction) -> None:
    """End the session that the access token belongs to."""
    await log_out(SessionRepository(connection), trail, identity)
