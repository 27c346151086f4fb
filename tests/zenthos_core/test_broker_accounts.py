"""The password file: what Mosquitto reads, and what concurrent writers leave behind."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zenthos_core import broker_accounts
from zenthos_core.broker_accounts import hash_password, reload_broker, set_account, set_accounts


def users(path: Path) -> list[str]:
    return [line.partition(":")[0] for line in path.read_text().splitlines()]


def test_hash_has_the_fields_of_the_file_format() -> None:
    field = hash_password("secret", bytes(range(12)), iterations=101)
    kind, iterations, salt, digest = field[1:].split("$")
    assert (kind, iterations, salt) == ("7", "101", "AAECAwQFBgcICQoL")
    assert len(digest) == 88


def test_salt_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="12"):
        hash_password("secret", b"short")


def test_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_accounts(path, {"a": "1", "b": "2"})
    first = path.read_text()
    set_account(path, "c", "3")
    assert path.read_text().startswith(first)
    set_account(path, "a", "4")
    assert sorted(users(path)) == ["a", "b", "c"]
    assert path.read_text().splitlines()[0] == first.splitlines()[1]


def test_a_name_that_ends_like_another_is_not_it(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_account(path, "north-device", "1")
    set_account(path, "device", "2")
    assert users(path) == ["north-device", "device"]


def test_line_torn_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_account(path, "whole", "1")
    with path.open("a") as file:
        file.write("torn:$7$1$AAAA")
    set_account(path, "next", "2")
    assert users(path) == ["whole", "next"]


def test_replacing_keeps_mode_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_account(path, "a", "1")
    path.chmod(0o640)
    set_account(path, "a", "2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {p.name for p in tmp_path.iterdir()} == {"passwords", ".passwords.lock"}


def test_new_file_is_private(tmp_path: Path) -> None:
    set_account(tmp_path / "passwords", "a", "1")
    assert stat.S_IMODE((tmp_path / "passwords").stat().st_mode) == 0o600


@pytest.mark.parametrize("user", ["", "a:b", "a\nroot", "../x", "a b", "é"])
def test_user_names_that_would_break_the_file_are_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(ValueError, match="user name"):
        set_account(tmp_path / "passwords", user, "1")


def test_remove(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    set_accounts(path, {"a": "1", "b": "2"})
    broker_accounts.remove_account(path, "a")
    broker_accounts.remove_account(path, "unknown")
    assert users(path) == ["b"]


WRITER = """
import sys
from pathlib import Path
from zenthos_core.broker_accounts import set_accounts
for number in range(50):
    set_accounts(Path(sys.argv[1]), {f"w{sys.argv[2]}-{number}": "x", "shared": sys.argv[2]})
"""


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "passwords"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    expected = {f"w{writer}-{number}" for writer in range(3) for number in range(50)}
    assert sorted(users(path)) == sorted(expected | {"shared"})


@pytest.mark.parametrize("content", [None, "", "no number", "4194305"])
def test_reload_without_a_broker(tmp_path: Path, content: str | None) -> None:
    pid_file = tmp_path / "pid"
    if content is not None:
        pid_file.write_text(content)
    assert reload_broker(pid_file) is False


def test_reload_reaches_the_process(tmp_path: Path) -> None:
    # not a shell, which cannot trap what its parent ignores, as under nohup
    script = (
        "import signal, sys, time; signal.signal(signal.SIGHUP, lambda *_: sys.exit(42));"
        " print('ready', flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        (tmp_path / "pid").write_text(str(process.pid))
        assert reload_broker(tmp_path / "pid") is True
        assert process.wait(10) == 42
