"""Each benchmark runs, and counts right; its figures are for people to judge."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("mosquitto_programs")]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def bench(*arguments: str) -> dict[str, Any]:
    """The figures of one run in which nothing was lost or doubled."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["cpu_us_per_message"] > 0
    assert 10 < result["peak_rss_mib"] < 1_000
    return result


def test_ingest() -> None:
    result = bench("ingest", "5000", "--runs", "2", "--commit-delay-us", "200")
    assert (result["messages"], result["commit_delay_us"]) == (5_000, 200)
    assert result["ratio"] == pytest.approx(
        result["msg_per_s"] / result["peer_msg_per_s"], rel=0.01
    )
    assert 0 < result["ratio_min"] <= result["ratio_max"]
    assert len(result["rss_mib"]) == 4
    assert 10 < min(result["rss_mib"]) <= max(result["rss_mib"]) < result["peak_rss_mib"] + 1
    assert result["trace_cost_percent"] is None


def test_ingest_with_the_cost_of_traces() -> None:
    result = bench("ingest", "3000", "--runs", "1", "--trace-cost")
    assert result["trace_cost_percent"] > -100
    assert result["trace_cpu_percent"] > -100


def test_latency() -> None:
    result = bench(
        *("latency", "--connections", "50", "--interval", "0.5"),
        *("--seconds", "2", "--warm-up", "0.5", "--spike", "100"),
    )
    assert (result["messages"], result["msg_per_s"]) == (350, 100)
    for name in ("", "peer_"):
        assert 0 < result[f"{name}p50_ms"] <= result[f"{name}p99_ms"]
        assert result[f"{name}spike_drain_s"] >= 0
    assert result["send_lateness_p99_ms"] >= 0
    assert result["load_cpu_us_per_message"] > 0


@pytest.mark.parametrize("how", [[], ["--real-time", "--spool-after-s", "3600"]])
def test_drain(how: list[str]) -> None:
    result = bench("drain", "--outage-s", "3", "--rate", "500", *how)
    assert result["messages"] == 1_500
    assert result["compressed"] is not bool(how)
    assert result["down_s"] >= 3 if how else result["down_s"] > 0
    assert 0 < result["resume_s"] <= result["seconds"]
    assert result["drain_msg_per_s"] == pytest.approx(1_500 / result["seconds"], rel=0.01)
    assert result["broker_rss_mib"] > 0


def test_a_load_without_a_message_is_refused() -> None:
    done = run("latency", "--connections", "1", "--interval", "60", "--seconds", "1")
    assert done.returncode == 1
    assert "more seconds or connections" in done.stderr


def test_archive() -> None:
    done = run("archive", "--devices", "40", "--hours", "1")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["byte_exact"] is True
    assert result["rows"] >= 40 * 60
    assert 1 < result["peer_ratio_simulated"] < result["ratio_simulated"]
    ratios = [result[f"ratio_{name}"] for name in ("simulated", "real")]
    assert result["ratio"] == min(ratio for ratio in ratios if ratio is not None)
    for name in ("encode", "decode", "read"):
        assert result[f"{name}_rows_per_s"] > 0
