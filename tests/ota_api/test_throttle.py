"""Throttling, by its rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api import throttle
from ota_api.throttle import Throttle
from zenthos_core.errors import ThrottledError


def refused(counted: Throttle, key: str, now: float) -> bool:
    try:
        counted.begin(key, now)
    except ThrottledError:
        return True
    return False


def test_rule_1_after_so_many_failures_until_the_window_has_passed() -> None:
    counted = Throttle("logins", most=3, window_s=60)
    assert [refused(counted, "a", now) for now in (0, 10, 20, 30)] == [False] * 3 + [True]
    assert not refused(counted, "b", 30)
    with pytest.raises(ThrottledError, match="try again in 1 s") as error:
        counted.begin("a", 59.5)
    assert error.value.retry_after_s == 1
    assert not refused(counted, "a", 60)


def test_rule_2_what_succeeds_is_given_back() -> None:
    counted = Throttle("logins", most=2, window_s=60)
    for _ in range(10):
        counted.begin("a", 0)
        counted.succeed("a")
    counted.begin("a", 0)
    for _ in range(10):
        counted.begin("a", 0)
        counted.succeed("a")
    counted.begin("a", 0)
    assert refused(counted, "a", 0)


def test_rule_3_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_KEYS", 10)
    counted = Throttle("logins", most=1, window_s=60)
    for number in range(100):
        counted.begin(str(number), 0)
    assert [refused(counted, str(number), 0) for number in (95, 99)] == [True, True]
    assert not refused(counted, "0", 0)
    assert len(counted._windows) == 10


def test_rule_4_a_clock_that_is_set_back() -> None:
    counted = Throttle("logins", most=1, window_s=60)
    counted.begin("a", 1_000_000)
    assert not refused(counted, "a", 10)
    assert refused(counted, "a", 20)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.booleans())))
def test_against_a_naive_count(attempts: list[tuple[str, int, bool]]) -> None:
    counted = Throttle("logins", most=2, window_s=20)
    failed: dict[str, list[float]] = {"a": [], "b": []}
    began: dict[str, float] = {}
    now = 0.0
    for key, step, succeeds in attempts:
        now += step
        if key in began and now - began[key] >= 20:
            failed[key] = []
        expected = len(failed[key]) >= 2
        assert refused(counted, key, now) == expected
        if not expected:
            if not failed[key]:
                began[key] = now
            if succeeds:
                counted.succeed(key)
            else:
                failed[key].append(now)
