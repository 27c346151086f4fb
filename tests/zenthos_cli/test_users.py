"""`zenthos user`: the first admin needs no server, and no password stands on a command line."""

import psycopg
import pytest
from typer.testing import CliRunner, Result

from zenthos_cli.main import app
from zenthos_core.passwords import verify_password

PASSWORD = "correct horse battery"


@pytest.fixture
def database(ops_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The operational database that the commands find."""
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", ops_url)
    return ops_url


def run(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(app, ["user", *arguments], input=given)


def create(name: str, role: str = "viewer", password: str = PASSWORD) -> Result:
    return run("create", name, "--role", role, "--password-stdin", given=f"{password}\n")


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_create_the_first_admin(database: str) -> None:
    result = create("ada", "admin")
    assert (result.exit_code, result.stdout) == (0, "created ada (admin)\n")
    [(name, role, stored)] = rows(database, "SELECT name, role, password_hash FROM users")
    assert (name, role) == ("ada", "admin")
    assert verify_password(str(stored), PASSWORD)
    [(actor, kind, action, subject)] = rows(
        database, "SELECT actor, role, action, subject FROM audit_log"
    )
    assert str(actor).startswith("cli:")
    assert (kind, action, subject) == ("system", "user.create", "user ada")


def test_a_name_is_given_once(database: str) -> None:
    create("ada")
    again = create("ada")
    assert again.exit_code == 1
    assert "choose another name" in again.stderr
    assert len(rows(database, "SELECT FROM users")) == 1


@pytest.mark.parametrize(
    ("name", "password", "word"),
    [("ada", "short", "12 to 1024 bytes"), ("svc-x", PASSWORD, "cannot name"), ("A", PASSWORD, "")],
)
def test_what_cannot_be_created(database: str, name: str, password: str, word: str) -> None:
    result = create(name, password=password)
    assert result.exit_code == 1
    assert word in result.stderr
    assert "Traceback" not in result.output
    assert rows(database, "SELECT FROM users") == []


def test_without_a_terminal_the_password_comes_from_standard_input(database: str) -> None:
    result = run("create", "ada", given=f"{PASSWORD}\n")
    assert result.exit_code == 1
    assert "--password-stdin" in result.stderr


def test_list(database: str) -> None:
    assert "zenthos user create" in run("list").stdout
    create("bob", "operator")
    create("ada")
    run("disable", "bob")
    lines = [line.split() for line in run("list").stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["user", "role"],
        ["ada", "viewer"],
        ["bob", "operator"],
    ]
    assert [line.count("UTC") for line in lines] == [0, 1, 2]


def test_disable(database: str) -> None:
    create("ada")
    assert run("disable", "ada").stdout == "disabled ada\n"
    assert run("disable", "ada").stdout == "ada was disabled already\n"
    assert run("disable", "nobody").exit_code == 1
    changed = run("password", "ada", "--password-stdin", given=f"{PASSWORD}\n")
    assert "is disabled" in changed.stderr


def test_password(database: str) -> None:
    create("ada")
    changed = run("password", "ada", "--password-stdin", given="another battery staple\n")
    assert changed.stdout == "changed the password of ada\n"
    [(stored,)] = rows(database, "SELECT password_hash FROM users")
    assert verify_password(str(stored), "another battery staple")
    assert rows(database, "SELECT count(*) FROM audit_log") == [(2,)]


def test_role(database: str) -> None:
    create("ada")
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO sessions (user_id, started_at, expires_at)"
            " SELECT id, now(), now() + interval '1 day' FROM users"
        )
    assert run("role", "ada", "operator").stdout == "ada is operator now\n"
    assert run("role", "ada", "operator").stdout == "ada was operator already\n"
    assert rows(
        database, "SELECT role, end_reason FROM users JOIN sessions ON user_id = users.id"
    ) == [("operator", "role_changed")]
    [entry] = rows(database, "SELECT before, after FROM audit_log WHERE action = 'user.role'")
    assert entry == ({"role": "viewer"}, {"role": "operator", "sessions_ended": 1})
    run("disable", "ada")
    assert "is disabled" in run("role", "ada", "admin").stderr


def test_a_database_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", "postgresql://zenthos@127.0.0.1:1/zenthos_ops")
    result = create("ada")
    assert result.exit_code == 1
    assert "is it up?" in result.stderr
    assert "Traceback" not in result.output
