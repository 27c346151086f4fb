"""The bench of rollouts concludes the same in both ways."""

import pytest

from bench.rollout import run_rollout_bench


@pytest.mark.bench
def test_both_count_the_same() -> None:
    result = run_rollout_bench(1_000, runs=1)
    assert result.same_counts
    assert result.deployments == 800
    assert (result.proven, result.timed_out) == (50, 100)
