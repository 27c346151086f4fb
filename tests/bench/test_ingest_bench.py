"""The benchmark of ingest runs, and counts right; its figures are for people to judge."""

import json
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import publisher
from tests.conftest import ROOT
from zenthos_cli.stack.mosquitto import Mosquitto
from zenthos_core.messages import parse_payload


def test_readings_are_about_300_bytes_and_valid() -> None:
    payloads = [publisher.reading(n, uuid.uuid4(), 1_795_400_000) for n in range(2_000)]
    assert 280 <= sum(map(len, payloads)) / len(payloads) <= 320
    devices = {parse_payload("telemetry", payload).device_id for payload in payloads}
    assert len(devices) == publisher.DEVICES


def test_the_ids_of_a_run_are_unique_and_the_same_again() -> None:
    ids = [*publisher.message_ids(1, 0, 500), *publisher.message_ids(1, 500, 500)]
    assert len(set(ids)) == 1_000
    assert ids[:500] == publisher.message_ids(1, 0, 500)


@given(st.integers(0, 50), st.integers(1, 60))
def test_acknowledgements_are_counted_over_any_cut(count: int, read_bytes: int) -> None:
    stream = b"\x40\x02\x00\x01" * count + b"\x40\x03\x00\x02\x10"
    counted, buffer = 0, b""
    for at in range(0, len(stream), read_bytes):
        more, buffer = publisher.count_acknowledgements(buffer + stream[at : at + read_bytes])
        counted += more
    assert (counted, buffer) == (count + 1, b"")


@pytest.mark.bench
def test_nothing_is_lost_or_doubled(mosquitto_programs: Mosquitto) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "ingest", "5000", "--runs", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["messages"], result["lost"], result["duplicated"]) == (5000, 0, 0)
    assert result["ratio"] == pytest.approx(
        result["msg_per_s"] / result["peer_msg_per_s"], rel=0.01
    )
