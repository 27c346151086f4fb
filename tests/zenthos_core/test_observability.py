"""Logs and metrics of a process."""

import json
import subprocess
import sys

PROGRAM = """
import logging
from opentelemetry import metrics, trace
from prometheus_client import generate_latest
from zenthos_core.observability import setup_logging, setup_telemetry
early = metrics.get_meter("early").create_counter("zenthos.test.early")
setup_logging("test", "info")
setup_telemetry("test")
early.add(2)
log = logging.getLogger("zenthos.test")
log.debug("not written")
log.info("outside", extra={"rows": 3})
with trace.get_tracer("test").start_as_current_span("work"):
    log.warning("inside %s", "a span")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
print(generate_latest().decode())
"""


def test_json_lines_with_trace_ids_and_metrics() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    outside, inside, failed = map(json.loads, done.stderr.splitlines())
    assert (outside["level"], outside["logger"], outside["message"]) == (
        "INFO",
        "zenthos.test",
        "outside",
    )
    assert (outside["service"], outside["rows"]) == ("test", 3)
    assert outside["timestamp"].endswith("Z")
    assert "trace_id" not in outside
    assert inside["message"] == "inside a span"
    assert len(inside["trace_id"]) == 32
    assert len(inside["span_id"]) == 16
    assert "ZeroDivisionError" in failed["exc_info"]
    assert "zenthos_test_early_total{" in done.stdout
