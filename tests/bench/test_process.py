"""Helpers say what went wrong; the kernel's figures are read right."""

import os
import time
from pathlib import Path

import pytest

from bench.process import BenchError, await_idle, cpu_s, helpers, peak_rss_mib, rss_mib
from bench.servers import running_postgres
from zenthos_cli.stack.postgres import PostgresCluster
from zenthos_core.errors import ConfigurationError


def test_a_helper_that_does_not_start_is_an_error() -> None:
    with (
        pytest.raises(BenchError, match="no_such_module did not start"),
        helpers("no_such_module", ()),
    ):
        pytest.fail("it has not started")


def test_a_postgres_that_is_not_ready_in_time_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = PostgresCluster.accepts_connections
    monkeypatch.setattr("bench.servers.START_S", 0.5)
    monkeypatch.setattr(PostgresCluster, "accepts_connections", lambda c: ready(c) and False)
    with pytest.raises(ConfigurationError, match="did not start"), running_postgres(tmp_path):
        pytest.fail("it is not ready")
    assert list(tmp_path.rglob("PG_VERSION"))
    assert not list(tmp_path.rglob("postmaster.pid"))


def test_cpu_time_is_that_of_the_process() -> None:
    before, used = cpu_s(os.getpid()), time.process_time()
    while time.process_time() - used < 0.2:
        pass
    assert cpu_s(os.getpid()) - before == pytest.approx(time.process_time() - used, abs=0.05)


def test_memory_in_use_is_at_most_the_peak() -> None:
    ballast = bytearray(os.urandom(1)) * 50_000_000
    held = rss_mib(os.getpid())
    assert held > len(ballast) / 2**20
    del ballast
    assert rss_mib(os.getpid()) < held
    assert peak_rss_mib(os.getpid()) > held - 1  # the kernel brings it up to date in steps


def test_a_process_that_waits_is_idle_and_one_that_works_is_not() -> None:
    with helpers("bench.otlp_sink", (0,)) as [sink]:
        await_idle(sink.pid, for_s=0.1)
    with pytest.raises(BenchError, match="did not come to rest"):
        await_idle(os.getpid(), for_s=0.1, timeout_s=0.0)
