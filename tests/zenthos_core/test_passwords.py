"""Passwords, by the rules of zenthos_core.passwords."""

import pytest

from zenthos_core.errors import InvalidInputError
from zenthos_core.passwords import hash_password, verify_password


@pytest.mark.parametrize("password", ["twelve bytes", "пароль, длинный", "x" * 1024])
def test_what_was_hashed_verifies_and_nothing_else(password: str) -> None:
    stored = hash_password(password)
    assert verify_password(stored, password)
    assert not verify_password(stored, f"{password} ")
    assert not verify_password(stored, "")


def test_each_hash_has_a_salt_of_its_own() -> None:
    assert hash_password("correct horse battery") != hash_password("correct horse battery")


@pytest.mark.parametrize("password", ["", "eleven byte", "x" * 1025])
def test_rule_1_bounds(password: str) -> None:
    with pytest.raises(InvalidInputError, match="12 to 1024 bytes"):
        hash_password(password)


def test_rule_2_nobody_has_no_password() -> None:
    assert not verify_password(None, "correct horse battery")
