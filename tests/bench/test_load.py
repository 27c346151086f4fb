"""The load is spread as the rules of bench/load.py say."""

import pytest

from bench.load import SPIKE, SPIKE_S, STEADY, WARM_UP, Load, schedule

LOAD = Load(connections=20, interval_s=2.0, warm_up_s=2.0, seconds=6.0, spike=50)


def test_devices_are_spread_evenly_over_the_interval() -> None:
    steady = [send for send in schedule(LOAD) if send.phase != SPIKE]
    assert [send.due_s for send in steady] == pytest.approx([k / 10 for k in range(80)])
    for device in range(20):
        due = [send.due_s for send in steady if send.device == device]
        assert due == pytest.approx([device / 10 + 2.0 * n for n in range(4)])


def test_the_warm_up_does_not_count() -> None:
    sends = list(schedule(LOAD))
    assert {send.due_s < 2.0 for send in sends if send.phase == WARM_UP} == {True}
    assert sum(send.phase == STEADY for send in sends) == 60


def test_the_spike_takes_one_second_in_the_middle() -> None:
    due = [send.due_s for send in schedule(LOAD) if send.phase == SPIKE]
    assert len(due) == 50
    assert min(due) == LOAD.spike_at_s == 5.0
    assert max(due) < LOAD.spike_at_s + SPIKE_S


def test_every_message_has_an_id_and_comes_in_order_of_time() -> None:
    due = [send.due_s for send in schedule(LOAD)]
    assert due == sorted(due)
    assert len(set(LOAD.ids())) == len(due)
