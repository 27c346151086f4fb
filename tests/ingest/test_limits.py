"""Rules of ingest/limits.py."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.limits import Bucket, RateLimiter

NOW = 1_795_400_000.0


def limiter(per_s: float = 1, burst: float = 10) -> RateLimiter:
    return RateLimiter(Bucket(per_s, burst), Bucket(100, 1_000))


def taken(limit: RateLimiter, count: int, now: float, *, late: bool = False) -> int:
    return sum(limit.allows("field-01", now, late=late) for _ in range(count))


def test_a_burst_and_then_one_a_second() -> None:
    limit = limiter()
    assert taken(limit, 25, NOW) == 10
    assert taken(limit, 5, NOW + 1) == 1
    assert taken(limit, 5, NOW + 4) == 3


def test_a_steady_device_is_never_limited() -> None:
    limit = limiter()
    assert all(limit.allows("field-01", NOW + second, late=False) for second in range(10_000))


def test_late_messages_take_from_a_bucket_of_their_own() -> None:
    limit = limiter()
    assert taken(limit, 5_000, NOW, late=True) == 1_000
    assert taken(limit, 25, NOW) == 10


def test_devices_do_not_share() -> None:
    limit = limiter()
    taken(limit, 100, NOW)
    assert limit.allows("field-02", NOW, late=False)


def test_a_clock_that_is_set_back_forgives() -> None:
    limit = limiter()
    taken(limit, 100, NOW)
    assert taken(limit, 100, NOW - 3_600) == 10


@given(
    st.lists(st.floats(0, 5), min_size=1, max_size=300),
    st.floats(0.1, 20),
    st.integers(1, 50),
)
def test_never_more_than_burst_and_rate_allow(
    pauses: list[float], per_s: float, burst: int
) -> None:
    limit, now, allowed = limiter(per_s, burst), NOW, []
    for pause in pauses:
        now += pause
        if limit.allows("field-01", now, late=False):
            allowed.append(now)
    for first, start in enumerate(allowed):
        for last in range(first, len(allowed)):
            window = allowed[last] - start
            assert last - first + 1 <= burst + window * per_s + 1e-3
