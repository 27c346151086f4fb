"""Throttling, by its rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.limits.counters import Counter
from ota_api.throttle import Throttle
from tests.ota_api.clocks import Clock, run
from zenthos_core.errors import ThrottledError


def throttle(clock: Clock, most: int, window_s: int) -> Throttle:
    return Throttle("logins", most, Counter("logins", window_s, clock))


def refused(counted: Throttle, key: str) -> bool:
    try:
        run(counted.begin(key))
    except ThrottledError:
        return True
    return False


def test_rule_1_after_so_many_failures_until_the_window_has_passed() -> None:
    clock = Clock(0)
    counted = throttle(clock, most=3, window_s=60)
    assert [refused(counted, "a") for clock.now in (0, 10, 20, 30)] == [False] * 3 + [True]
    assert not refused(counted, "b")
    clock.now = 59.5
    with pytest.raises(ThrottledError, match="try again in 1 s") as error:
        run(counted.begin("a"))
    assert error.value.retry_after_s == 1
    clock.now = 60
    assert not refused(counted, "a")


def test_rule_2_what_succeeds_is_given_back() -> None:
    counted = throttle(Clock(0), most=2, window_s=60)
    for _ in range(10):
        run(counted.begin("a"))
        run(counted.succeed("a"))
    run(counted.begin("a"))
    for _ in range(10):
        run(counted.begin("a"))
        run(counted.succeed("a"))
    run(counted.begin("a"))
    assert refused(counted, "a")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.booleans())))
def test_against_a_naive_count(attempts: list[tuple[str, int, bool]]) -> None:
    clock = Clock(0)
    counted = throttle(clock, most=2, window_s=20)
    failed: dict[str, list[float]] = {"a": [], "b": []}
    began: dict[str, float] = {}
    for key, step, succeeds in attempts:
        clock.now += step
        if key in began and clock.now - began[key] >= 20:
            failed[key] = []
        expected = len(failed[key]) >= 2
        assert refused(counted, key) == expected
        if not expected:
            if not failed[key]:
                began[key] = clock.now
            if succeeds:
                run(counted.succeed(key))
            else:
                failed[key].append(clock.now)
