"""Who is in a rollout; tests bear the numbers of the module's rules."""

from collections import Counter
from uuid import UUID, uuid4

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from ota_api.rollouts.membership import BUCKETS, bucket_of, is_in

ROLLOUT = UUID("6f1e0a52-0c2e-4b7a-9a51-8a2f4a1f7c11")


def test_rule_1_the_database_has_the_same_buckets(ops_url: str) -> None:
    devices = [f"device-{number:04}" for number in range(2_000)]
    with psycopg.connect(ops_url) as connection:
        rows = connection.execute(
            "SELECT d, rollout_bucket(%s, d) FROM unnest(%s::text[]) AS d", (ROLLOUT, devices)
        ).fetchall()
    assert dict(rows) == {device: bucket_of(ROLLOUT, device) for device in devices}


def test_rule_1_buckets_are_spread_evenly_and_differently_in_each_rollout() -> None:
    other = uuid4()
    tenths = Counter(bucket_of(ROLLOUT, f"device-{n}") * 10 // BUCKETS for n in range(20_000))
    assert all(1_800 < count < 2_200 for count in tenths.values())
    same = sum(bucket_of(ROLLOUT, f"d-{n}") == bucket_of(other, f"d-{n}") for n in range(2_000))
    assert same < 10


@given(st.integers(0, 9_999), st.floats(0.01, 100), st.floats(0.01, 100))
def test_rule_2_raising_the_percentage_only_adds(bucket: int, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert not is_in(bucket, low, 0, finished=False) or is_in(bucket, high, 0, finished=False)


def test_rule_2_a_tenth_of_a_percent_is_ten_buckets() -> None:
    assert sum(is_in(bucket, 0.1, 0, finished=False) for bucket in range(BUCKETS)) == 10


def test_rule_3_the_control_cohort_waits_until_the_end() -> None:
    held = [bucket for bucket in range(BUCKETS) if not is_in(bucket, 100, 5, finished=False)]
    assert held == list(range(9_500, BUCKETS))
    assert all(is_in(bucket, 100, 5, finished=True) for bucket in held)
    assert not is_in(9_999, 50, 5, finished=True)
