"""The revocation list: what it keeps, drops and refuses, and what concurrent writers leave."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zenthos_core.errors import ConfigurationError
from zenthos_core.revocations import read_revocations, renew_tokens, revoke_tokens
from zenthos_core.tokens import DEVICE_TOKEN_S

NOW = 1_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "revocations"


def test_revoking_voids_what_was_issued_up_to_now(path: Path) -> None:
    revoke_tokens(path, ["field-1", "field-2"], now=NOW + 0.7)
    assert path.read_text() == f"field-1 {NOW + 1}\nfield-2 {NOW + 1}\n"


def test_renewing_voids_what_was_issued_before_now(path: Path) -> None:
    assert renew_tokens(path, "field-1", now=NOW + 0.7) == NOW
    assert read_revocations(path) == {"field-1": NOW}


def test_a_token_is_never_issued_into_a_void_second(path: Path) -> None:
    revoke_tokens(path, ["field-1"], now=NOW)
    assert renew_tokens(path, "field-1", now=NOW) == NOW + 1


def test_the_second_never_falls(path: Path) -> None:
    revoke_tokens(path, ["field-1"], now=NOW)
    revoke_tokens(path, ["field-1"], now=NOW - 100)
    assert read_revocations(path) == {"field-1": NOW + 1}


def test_lines_older_than_any_token_go(path: Path) -> None:
    revoke_tokens(path, ["field-1"], now=NOW)
    revoke_tokens(path, ["field-2"], now=NOW + DEVICE_TOKEN_S + 1)
    assert set(read_revocations(path)) == {"field-1", "field-2"}
    revoke_tokens(path, ["field-3"], now=NOW + DEVICE_TOKEN_S + 2)
    assert set(read_revocations(path)) == {"field-2", "field-3"}


def test_no_file_is_an_empty_list(path: Path) -> None:
    assert read_revocations(path) == {}


@pytest.mark.parametrize("line", ["field-1", "field-1 x", "Field 1", "field-1 -1", " field-1 1"])
def test_a_damaged_list_is_named_and_left_alone(path: Path, line: str) -> None:
    path.write_text(f"field-0 {NOW}\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"revocations, line 2: .*mend it"):
        revoke_tokens(path, ["field-2"], now=NOW)
    assert path.read_text() == f"field-0 {NOW}\n{line}\n"


@pytest.mark.parametrize("device_id", ["", "a b", "field-1\nfield-2 1", "../x", "Field-1"])
def test_what_is_no_device_id_is_refused(path: Path, device_id: str) -> None:
    with pytest.raises(ValueError, match="device id"):
        revoke_tokens(path, [device_id], now=NOW)
    assert not path.exists()


def test_a_new_file_is_private_and_a_replaced_one_keeps_its_mode(path: Path) -> None:
    revoke_tokens(path, ["field-1"], now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    revoke_tokens(path, ["field-2"], now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {p.name for p in path.parent.iterdir()} == {"revocations", ".revocations.lock"}


WRITER = """
import sys
from pathlib import Path
from zenthos_core.revocations import revoke_tokens
for number in range(50):
    revoke_tokens(Path(sys.argv[1]), [f"w{sys.argv[2]}-{number}", "shared"], now=1_800_000_000)
"""


def test_concurrent_writers_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)]) for n in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    expected = {f"w{writer}-{number}" for writer in range(3) for number in range(50)}
    assert set(read_revocations(path)) == expected | {"shared"}
