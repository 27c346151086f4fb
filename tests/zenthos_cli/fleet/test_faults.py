import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenthos_cli.fleet.faults import UNSET_CLOCK_S, Emission, FaultRates, FaultyLink, malformed
from zenthos_cli.fleet.messages import Device, Sample, telemetry
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import parse_payload

STEP_S = 900
rates = st.builds(
    FaultRates,
    outages_per_day=st.floats(0, 20),
    outage_mean_h=st.floats(0.1, 12),
    duplicate=st.floats(0, 1),
    out_of_order=st.floats(0, 1),
    clock_error=st.floats(0, 1),
    malformed=st.floats(0, 1),
)


def pass_all(found: FaultRates, seed: int, count: int) -> list[Emission]:
    link = FaultyLink(found, random.Random(seed))
    emissions = []
    for number in range(count):
        emissions += link.pass_on(Sample(number * STEP_S, {"temperature": 20.0}), STEP_S)
    return emissions + link.flush()


@given(rates, st.integers(), st.integers(0, 200))
def test_every_sample_leaves_exactly_once(found: FaultRates, seed: int, count: int) -> None:
    times = Counter(emission.sample.time for emission in pass_all(found, seed, count))
    assert times == Counter(number * STEP_S for number in range(count))


def test_without_faults_everything_passes_as_it_comes() -> None:
    assert pass_all(FaultRates(), 1, 5) == [
        Emission(Sample(number * STEP_S, {"temperature": 20.0})) for number in range(5)
    ]


def test_after_an_outage_the_backlog_comes_first_and_says_so() -> None:
    found = pass_all(FaultRates(outages_per_day=3, outage_mean_h=2), 4, 500)
    late = [emission for emission in found if emission.backlog]
    assert 5 < len(late) < 450
    assert [e.sample.time for e in found] == sorted(e.sample.time for e in found)


def test_a_duplicate_is_the_same_emission_twice() -> None:
    assert {e.copies for e in pass_all(FaultRates(duplicate=1), 1, 10)} == {2}


def test_out_of_order_means_after_the_next() -> None:
    times = [e.sample.time // STEP_S for e in pass_all(FaultRates(out_of_order=1), 1, 6)]
    assert times == [1, 0, 3, 2, 5, 4]


def test_an_unset_clock_begins_in_2000() -> None:
    (emission,) = pass_all(FaultRates(clock_error=1), 1, 1)
    assert emission.clock is not None
    assert UNSET_CLOCK_S <= emission.clock < UNSET_CLOCK_S + 86_400


@pytest.mark.parametrize("seed", range(12))
def test_what_is_malformed_is_never_taken(seed: int) -> None:
    sample = Sample(1_700_000_000, {"temperature": 20.0})
    message = telemetry(Device("dev-1", "esp32-s3"), sample, salt="", backlog=False)
    with pytest.raises(InvalidMessageError):
        parse_payload("telemetry", malformed(message.payload, random.Random(seed)))
