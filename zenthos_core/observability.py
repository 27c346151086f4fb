"""Logs, traces and metrics, set up once by each service's entry point.

Logs are JSON on standard error with the current trace and span id. Traces and metrics go to
`OTEL_EXPORTER_OTLP_ENDPOINT` where it is set; metrics are always at Prometheus `/metrics`.
"""

import logging
import os
import sys
import time

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBasedTraceIdRatio, Sampler
from pythonjsonlogger.json import JsonFormatter

from zenthos_core import __version__

OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TraceContextFilter(logging.Filter):
    """Adds the current trace and span id to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            record.trace_id = f"{context.trace_id:032x}"
            record.span_id = f"{context.span_id:016x}"
        return True


def setup_logging(service: str, level: str) -> None:
    """Write JSON lines to standard error: timestamp, level, logger, message, trace ids, extras."""
    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "timestamp", "levelname": "level", "name": "logger"},
        static_fields={"service": service},
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(TraceContextFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def setup_telemetry(service: str, *, trace_ratio: float = 1.0) -> None:
    """Install the tracer and meter providers of this process; call once.

    `trace_ratio` is the share of traces that are recorded; `OTEL_TRACES_SAMPLER` overrides it.
    """
    resource = Resource({SERVICE_NAME: f"zenthos-{service}", SERVICE_VERSION: __version__})
    readers: list[MetricReader] = [PrometheusMetricReader()]
    sampler: Sampler | None = ParentBasedTraceIdRatio(trace_ratio)
    if os.environ.get(OTEL_TRACES_SAMPLER):
        sampler = None
    elif not os.environ.get(OTLP_ENDPOINT):
        sampler = ALWAYS_OFF  # nobody would read the spans; logs have trace ids all the same
    tracers = TracerProvider(resource=resource, sampler=sampler)
    if os.environ.get(OTLP_ENDPOINT):
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=readers))


def records_spans() -> bool:
    """Whether anybody reads the spans of this process."""
    return getattr(trace.get_tracer_provider(), "sampler", None) is not ALWAYS_OFF
