"""Spans of a batch, and of the messages in it that bring a trace of their own.

A batch is one trace: `mqtt.receive` with `decode`, `db.write` and `forward` in it. A message whose
user property `traceparent` (W3C Trace Context) says that it is sampled gets a span
`middleware.handle` in the device's trace, linked to the batch that stored it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zenthos_core.mqtt import Publish

MOST_TRACED: Final = 32
"""Messages of a batch that get a span of their own."""

tracer = trace.get_tracer("ingest")
_propagator: Final = TraceContextTextMapPropagator()


def ns(epoch_s: float) -> int:
    """OpenTelemetry's unit of time."""
    return int(epoch_s * 1e9)


def sampled(messages: Iterable[Publish]) -> list[tuple[Publish, SpanContext]]:
    """The messages that bring a sampled trace, with its context; at most MOST_TRACED."""
    found: list[tuple[Publish, SpanContext]] = []
    for message in messages:
        if message.traceparent and len(found) < MOST_TRACED:
            context = _context(message.traceparent)
            if context.is_valid and context.trace_flags.sampled:
                found.append((message, context))
    return found


def handled(
    traced: Sequence[tuple[Publish, SpanContext]], batch: SpanContext, committed_at: float
) -> None:
    """Tell each device's trace that its message is committed."""
    for message, context in traced:
        parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
        span = tracer.start_span(
            "middleware.handle",
            context=parent,
            kind=SpanKind.CONSUMER,
            links=[Link(batch)],
            start_time=ns(message.received_at),
            attributes={"messaging.destination.name": message.topic.decode(errors="replace")},
        )
        span.end(ns(committed_at))


def _context(traceparent: bytes) -> SpanContext:
    carrier = {"traceparent": traceparent.decode(errors="replace")}
    return trace.get_current_span(_propagator.extract(carrier)).get_span_context()
