"""What ingest counts and times; docs/reference/metrics.md says what each means."""

from collections.abc import Mapping

from opentelemetry import metrics


class IngestMetrics:
    """The instruments, made once the meter provider is set up."""

    def __init__(self) -> None:
        meter = metrics.get_meter(__name__)
        self.received = meter.create_counter(
            "zenthos.middleware.messages_received",
            description="Messages that arrived from the broker, redeliveries too.",
        )
        self.ingested = meter.create_counter(
            "zenthos.middleware.messages_ingested",
            description="Messages committed, by outcome: stored, duplicate, quarantined.",
        )
        self.validation_errors = meter.create_counter(
            "zenthos.middleware.validation_errors",
            description="Messages quarantined, by reason.",
        )
        self.ingest_latency = meter.create_histogram(
            "zenthos.middleware.ingest_latency_ms",
            description="From the receipt of a batch's first message to its commit, in ms.",
        )
        self.db_write_latency = meter.create_histogram(
            "zenthos.middleware.db_write_latency_ms",
            description="Duration of a batch's transaction, in ms.",
        )

    def committed(
        self, reasons: Mapping[str, int], *, stored: int, duplicate: int, quarantined: int
    ) -> None:
        """Count the messages of a committed transaction; `reasons` are those of quarantine."""
        outcomes = {"stored": stored, "duplicate": duplicate, "quarantined": quarantined}
        for outcome, count in outcomes.items():
            if count:
                self.ingested.add(count, {"outcome": outcome})
        for reason, count in reasons.items():
            self.validation_errors.add(count, {"reason": reason})
