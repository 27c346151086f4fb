"""What ingest counts and times; docs/reference/metrics.md says what each means."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from ingest.presence import Fleet
from ingest.writer import Outcome


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
            description="Messages committed, by outcome.",
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
        self.acks = meter.create_counter(
            "zenthos.middleware.acks_published",
            description="Ids of committed messages told to the devices that asked.",
        )
        self.spooled = meter.create_counter(
            "zenthos.middleware.messages_spooled",
            description="Messages kept on local disk while the database was away.",
        )
        self._spool_bytes = meter.create_gauge(
            "zenthos.middleware.spool_bytes", description="Size of the spool on disk, in bytes."
        )
        self._spool_bytes.set(0)
        self.fleet: Fleet | None = None
        """As the worker that keeps house last saw it; None at the others."""
        for name, description, read in _FLEET:
            meter.create_observable_gauge(name, [self._observing(read)], description=description)

    def set_spool_bytes(self, size: int) -> None:
        """How much the spool takes on disk."""
        self._spool_bytes.set(size)

    def committed(self, reasons: Mapping[str, int], outcome: Outcome) -> None:
        """Count the messages of a committed transaction; `reasons` are those of quarantine."""
        for name, count in outcome._asdict().items():
            if count:
                self.ingested.add(count, {"outcome": name})
        for reason, count in reasons.items():
            self.validation_errors.add(count, {"reason": reason})

    def _observing(
        self, read: Callable[[Fleet], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _options: read(self.fleet) if self.fleet else ()


_FLEET = (
    (
        "zenthos.devices.online_count",
        "Devices that are online.",
        lambda fleet: [Observation(fleet.online)],
    ),
    (
        "zenthos.devices.missing_readings",
        "Readings that devices have counted and that have not come.",
        lambda fleet: [Observation(fleet.missing_readings)],
    ),
    (
        "zenthos.ledger.messages_today",
        "Messages of this UTC day in the ledger, by outcome.",
        lambda fleet: [Observation(n, {"outcome": o}) for o, n in asdict(fleet.today).items()],
    ),
)
