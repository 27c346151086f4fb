"""Order of starts and stops, and the wait before a dead service starts again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_cli.stack.plan import (
    FIRST_WAIT_S,
    FORGIVEN_AFTER_S,
    LONGEST_WAIT_S,
    Deaths,
    Service,
    check_plan,
    needed_by,
)


def service(name: str, *needs: str) -> Service:
    return Service(name=name, command=["true"], needs=needs)


def test_a_plan_that_can_start() -> None:
    check_plan([service("c", "b"), service("a"), service("b", "a")])


def test_a_missing_need_is_named() -> None:
    with pytest.raises(ValueError, match="postgres"):
        check_plan([service("ingest", "postgres")])


def test_a_cycle_cannot_start() -> None:
    with pytest.raises(ValueError, match="cycle"):
        check_plan([service("a", "b"), service("b", "a"), service("c")])


def test_what_stops_before_a_service() -> None:
    services = [service("a"), service("b", "a"), service("c", "b"), service("d", "a")]
    assert needed_by("a", services) == ["b", "d"]
    assert needed_by("d", services) == []


def test_waits_double_up_to_a_cap() -> None:
    deaths, waits = Deaths(), []
    for _ in range(8):
        deaths = deaths.after(ran_s=1)
        waits.append(deaths.wait_s)
    assert waits[:4] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S, 8 * FIRST_WAIT_S]
    assert waits[-1] == LONGEST_WAIT_S


@given(st.integers(0, 10_000))
def test_a_good_run_is_forgiving(count: int) -> None:
    assert Deaths(count).after(FORGIVEN_AFTER_S).wait_s == FIRST_WAIT_S
    assert FIRST_WAIT_S <= Deaths(count).after(0).wait_s <= LONGEST_WAIT_S
