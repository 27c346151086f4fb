"""The fuzz target runs for a minute in CI, and for some seconds elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, unavailable

SECONDS = 60 if os.environ.get("CI") else 10


@pytest.mark.fault
def test_no_bytes_break_decode() -> None:
    if importlib.util.find_spec("atheris") is None:
        unavailable("atheris is not installed: it is for CPython on x86-64 Linux")
    target = Path(__file__).with_name("fuzz_decode.py")
    done = subprocess.run(
        [sys.executable, str(target), str(SECONDS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS + 120,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert executed is not None
    assert int(executed[1]) > 1_000
