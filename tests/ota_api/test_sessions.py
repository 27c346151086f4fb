"""Sessions, by the rules of ota_api.sessions.service: log in, go on, log out."""

import threading
import time

import httpx
import psycopg
import pytest

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.sessions.repository import SessionRepository
from ota_api.users.repository import UserRepository
from ota_api.users.service import change_password, create_user, disable_user
from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from zenthos_core import passwords, tokens
from zenthos_core.tokens import Role

PASSWORD = "correct horse battery"
HASH = passwords.hash_password(PASSWORD)


@pytest.fixture
def users(ota: Ota) -> Ota:
    """A server with a user of each role, named like it."""
    with connect(ota) as connection:
        for role in ("admin", "operator", "viewer"):
            connection.execute(
                "INSERT INTO users (name, role, password_hash) VALUES (%s, %s, %s)",
                (role, role, HASH),
            )
    return ota


def connect(ota: Ota) -> psycopg.Connection:
    return psycopg.connect(ota.settings.database_url.get_secret_value(), autocommit=True)


def log_in(ota: Ota, name: str = "viewer", password: str = PASSWORD) -> httpx.Response:
    return ota.http.post("/auth/login", json={"username": name, "password": password})


def refresh(ota: Ota, token: str) -> httpx.Response:
    return ota.http.post("/auth/refresh", json={"refresh_token": token})


def may_read(ota: Ota, access_token: str) -> bool:
    headers = {"Authorization": f"Bearer {access_token}"}
    status = ota.http.get("/devices", headers=headers).status_code
    assert status in {200, 401}
    return status == 200


async def manage(ota: Ota, action: str, *values: str) -> None:
    """As `zenthos user` does."""
    url = ota.settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        users, sessions = UserRepository(connection), SessionRepository(connection)
        trail = AuditTrail(AuditRepository(connection), Actor("cli:test", "system"))
        if action == "disable":
            await disable_user(users, sessions, trail, *values)
        else:
            await change_password(users, sessions, trail, *values)


@pytest.mark.parametrize(
    ("name", "scope"),
    [("viewer", "read"), ("operator", "read rollback"), ("admin", "read publish rollback")],
)
def test_logging_in_gives_tokens_of_the_role(users: Ota, name: str, scope: str) -> None:
    answer = log_in(users, name)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["role"], body["scope"], body["token_type"]) == (name, scope, "Bearer")
    assert (body["expires_in"], body["refresh_expires_in"]) == (7 * 86_400, 30 * 86_400)
    public = users.settings.token_public_key_file.read_bytes()
    identity = tokens.verify(public, body["access_token"])
    assert (identity.subject, identity.role) == (name, Role(name))
    assert identity.scopes == frozenset(scope.split())
    assert may_read(users, body["access_token"])


async def test_rule_1_every_refusal_is_the_same(users: Ota) -> None:
    await manage(users, "disable", "operator")
    refusals = [
        log_in(users, "nobody-here"),
        log_in(users, "operator"),
        log_in(users, "viewer", "wrong"),
        log_in(users, "viewer", PASSWORD + " "),
    ]
    assert {answer.status_code for answer in refusals} == {401}
    details = [{**answer.json(), "trace_id": ""} for answer in refusals]
    assert all(detail == details[0] for detail in details)


def test_rule_1_an_unknown_name_costs_a_hash_of_the_same_parameters() -> None:
    parts = HASH.split("$")
    assert passwords.NOBODY.split("$")[:4] == parts[:4]
    assert len(passwords.NOBODY) == len(HASH)
    assert not passwords.verify_password(None, PASSWORD)


def test_rule_2_each_refresh_gives_a_new_pair(users: Ota) -> None:
    first = log_in(users).json()
    second = refresh(users, first["refresh_token"])
    assert second.status_code == 200
    assert second.headers["cache-control"] == "no-store"
    third = refresh(users, second.json()["refresh_token"]).json()
    given = [pair["refresh_token"] for pair in (first, second.json(), third)]
    assert len(set(given)) == 3
    assert may_read(users, third["access_token"])
    assert may_read(users, first["access_token"])  # of the same session, not yet expired


def test_rule_3_a_token_that_comes_again_ends_its_session(users: Ota) -> None:
    stolen = log_in(users).json()
    another = log_in(users).json()
    newest = refresh(users, stolen["refresh_token"]).json()
    assert refresh(users, stolen["refresh_token"]).status_code == 401
    assert refresh(users, newest["refresh_token"]).status_code == 401
    assert not may_read(users, newest["access_token"])
    assert not may_read(users, stolen["access_token"])
    assert may_read(users, another["access_token"])
    assert refresh(users, another["refresh_token"]).status_code == 200
    ended = users.rows("SELECT after FROM audit_log WHERE action = 'session.end'")
    assert ended == [({"end_reason": "token_reused"},)]


def test_rule_3_of_many_at_once_one_goes_on_at_most(users: Ota) -> None:
    token = log_in(users).json()["refresh_token"]
    answers: list[int] = []

    def use() -> None:
        answer = httpx.post(
            f"{users.settings.ota_url}/auth/refresh",
            json={"refresh_token": token},
            timeout=30,
            trust_env=False,
        )
        answers.append(answer.status_code)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [401] * 7
    assert users.rows("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(0,)]


def test_rule_4_logging_out_ends_the_session_at_once(users: Ota) -> None:
    session, another = log_in(users).json(), log_in(users).json()
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    assert users.http.post("/auth/logout", headers=headers).status_code == 204
    assert not may_read(users, session["access_token"])
    assert refresh(users, session["refresh_token"]).status_code == 401
    assert users.http.post("/auth/logout", headers=headers).status_code == 401
    assert may_read(users, another["access_token"])


async def test_rule_4_disabling_a_user_ends_everything_at_once(users: Ota) -> None:
    sessions = [log_in(users, "operator").json() for _ in range(2)]
    await manage(users, "disable", "operator")
    for session in sessions:
        assert not may_read(users, session["access_token"])
        assert refresh(users, session["refresh_token"]).status_code == 401
    assert log_in(users, "operator").status_code == 401


async def test_rule_4_another_password_ends_sessions_of_the_old_one(users: Ota) -> None:
    session = log_in(users).json()
    await manage(users, "password", "viewer", "another battery staple")
    assert not may_read(users, session["access_token"])
    assert refresh(users, session["refresh_token"]).status_code == 401
    assert log_in(users).status_code == 401
    assert log_in(users, password="another battery staple").status_code == 200


def test_rule_4_in_another_worker_too(users: Ota) -> None:
    other = make_ota_settings(
        users.keys.parent / "other", users.settings.database_url.get_secret_value()
    ).model_copy(
        update={
            "token_private_key_file": users.settings.token_private_key_file,
            "token_public_key_file": users.settings.token_public_key_file,
        }
    )
    session = log_in(users).json()
    with running_ota(other) as second:
        assert may_read(second, session["access_token"])
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        users.http.post("/auth/logout", headers=headers)
        assert not may_read(second, session["access_token"])


def test_a_session_of_another_user_is_not_taken_over(users: Ota) -> None:
    log_in(users, "admin")
    [(session,)] = users.rows("SELECT id FROM sessions")
    token = users.token(Role.VIEWER, "viewer", session=str(session))
    assert not may_read(users, token)


def test_refresh_tokens_expire(users: Ota) -> None:
    token = log_in(users).json()["refresh_token"]
    with connect(users) as connection:
        connection.execute("UPDATE refresh_tokens SET expires_at = now() - INTERVAL '1 s'")
    assert refresh(users, token).status_code == 401
    assert users.rows("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(1,)]


def test_expired_sessions_go_with_the_next_login(users: Ota) -> None:
    log_in(users)
    with connect(users) as connection:
        connection.execute("UPDATE sessions SET expires_at = now() - INTERVAL '1 s'")
    log_in(users)
    assert users.rows("SELECT count(*) FROM sessions") == [(1,)]
    assert users.rows("SELECT count(*) FROM refresh_tokens") == [(1,)]


def test_used_tokens_of_a_session_that_goes_on_go_when_they_expire(users: Ota) -> None:
    token = log_in(users).json()["refresh_token"]
    for _ in range(3):
        token = refresh(users, token).json()["refresh_token"]
    with connect(users) as connection:
        connection.execute(
            "UPDATE refresh_tokens SET expires_at = now() - INTERVAL '30 days 1 second'"
            " WHERE used_at IS NOT NULL"
        )
    assert refresh(users, token).status_code == 200
    assert users.rows("SELECT count(*) FROM refresh_tokens") == [(2,)]


def test_rule_3_reuse_of_a_token_that_has_expired_ends_the_session_too(users: Ota) -> None:
    first = log_in(users).json()["refresh_token"]
    second = refresh(users, first).json()["refresh_token"]
    with connect(users) as connection:
        connection.execute(
            "UPDATE refresh_tokens SET expires_at = now() - INTERVAL '1 s'"
            " WHERE used_at IS NOT NULL"
        )
    third = refresh(users, second).json()["refresh_token"]
    assert refresh(users, first).status_code == 401
    assert refresh(users, third).status_code == 401


def test_rule_6_refresh_tokens_and_passwords_are_stored_as_hashes(users: Ota) -> None:
    token = log_in(users).json()["refresh_token"]
    assert token not in str(users.rows("SELECT * FROM refresh_tokens"))
    stored = users.rows("SELECT password_hash FROM users")
    assert all(hashed.startswith("$argon2id$v=19$m=65536,t=2,p=1$") for (hashed,) in stored)


def test_failed_logins_are_throttled_by_account(users: Ota) -> None:
    statuses = [log_in(users, password="wrong").status_code for _ in range(10)]
    assert set(statuses) == {401}
    refused = log_in(users)  # even with the right password
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 900
    assert refused.headers["content-type"] == "application/problem+json"
    assert log_in(users, "admin").status_code == 200


def test_a_name_that_nobody_has_is_throttled_alike(users: Ota) -> None:
    statuses = [log_in(users, "nobody-here").status_code for _ in range(11)]
    assert statuses == [401] * 10 + [429]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "viewer"},
        {"username": "viewer", "password": ""},
        {"username": "viewer", "password": "x" * 1025},
        {"username": "VIEWER", "password": "x"},
        {"username": "' OR 1=1 --", "password": "x"},
        {"username": ["viewer"], "password": "x"},
        {"username": "viewer", "password": "x", "role": "admin"},
    ],
    ids=str,
)
def test_credentials_that_are_not_valid(shared_ota: Ota, body: dict[str, object]) -> None:
    answer = shared_ota.http.post("/auth/login", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("token", ["", "short", "x" * 43, "x" * 44, "é" * 43, None, 5])
def test_refresh_tokens_that_are_not_good(shared_ota: Ota, token: object) -> None:
    answer = shared_ota.http.post("/auth/refresh", json={"refresh_token": token})
    assert answer.status_code == (401 if token == "x" * 43 else 422)


async def test_a_name_is_given_once(users: Ota) -> None:
    from zenthos_core.errors import ConflictError, InvalidInputError

    url = users.settings.database_url.get_secret_value()
    async with await psycopg.AsyncConnection.connect(url) as connection:
        repository = UserRepository(connection)
        trail = AuditTrail(AuditRepository(connection), Actor("cli:test", "system"))
        with pytest.raises(ConflictError, match="another name"):
            await create_user(repository, trail, "viewer", "admin", PASSWORD)
        for name in ("svc-ingest", "A", "a b", "../x", "x" * 65):
            with pytest.raises(InvalidInputError, match="cannot name a user"):
                await create_user(repository, trail, name, "admin", PASSWORD)


def test_tokens_of_the_previous_key_hold_until_they_expire(ota: Ota) -> None:
    old = ota.settings
    rotated = old.trusted_keys_file.parent / "rotated"
    rotated.mkdir()
    private = tokens.generate_private_key()
    (rotated / "token.pem").write_bytes(private)
    (rotated / "token.pub.pem").write_bytes(tokens.public_pem(private))
    settings = make_ota_settings(rotated, old.database_url.get_secret_value()).model_copy(
        update={
            "token_private_key_file": rotated / "token.pem",
            "token_public_key_file": rotated / "token.pub.pem",
            "token_previous_public_key_file": old.token_public_key_file,
        }
    )
    before = ota.token(Role.VIEWER)
    expired = ota.token(Role.VIEWER, now=time.time() - 7200)
    forged = tokens.issue(tokens.generate_private_key(), "x", Role.ADMIN, now=0, valid_s=2**40)
    with running_ota(settings) as after:
        kids = [key["kid"] for key in after.http.get("/.well-known/jwks.json").json()["keys"]]
        assert kids == [
            tokens.public_jwk(path.read_bytes())["kid"]
            for path in (settings.token_public_key_file, old.token_public_key_file)
        ]
        assert may_read(after, before)
        assert may_read(after, after.token(Role.VIEWER))
        assert not may_read(after, expired)
        assert not may_read(after, forged)
    assert not may_read(ota, after.token(Role.VIEWER))
