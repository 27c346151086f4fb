"""Many messages in, everything that one transaction writes out. Pure.

Rules:

1. Each message ends as exactly one of stored, duplicate, quarantined or rate_limited in the ledger
   of the UTC day it was received on. Whether it is a duplicate, the database has the last word: a
   message is `pending`, and stored where its insert finds no other of its id.
2. The same message_id twice from a device in a batch is a duplicate; the first one counts.
   Another device's message of that id is another message.
3. Every message that decodes goes to the outbox as it arrived, duplicates too.
4. A message over the device's limit goes to the outbox alone and is rate_limited.
5. A message older than the hot window goes to the outbox, and of other tables only its id to the
   one that knows it again. Predictions have no such window.
6. What does not decode is quarantined; the same bytes for the same reason are one row that counts.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ingest import rows
from ingest.decode import Device, Registry, decode, is_downward, parse_route
from ingest.devices import DeviceChange
from ingest.limits import LATE_S, RateLimiter
from ingest.quarantine import Quarantined
from ingest.rows import Arrival, Table
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import Inference, Log, Message, Status, Telemetry, event_time
from zenthos_core.mqtt import Publish

DAY_S: Final = 86_400
_REDELIVERED: Final = 8

LedgerKey = tuple[int, str]
"""A line of the ledger: days since 1970, and the device, '' where it is not registered."""

Name = tuple[str, bytes]
"""What names a message: its device and its message_id."""


class TableRows(NamedTuple):
    """Rows for one table, packed for COPY."""

    packed: list[bytes]
    doubtful: list[bytes]
    """Ids of messages that may have been stored under another `time`: the clock was, or is,
    suspect."""


class Batch:
    """What one transaction writes."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.tables = {table.name: TableRows([], []) for table in rows.TABLES}
        self.days: set[tuple[str, int]] = set()
        """Tables by day, and the days since 1970 that they are given rows of."""
        self.pending: dict[Name, tuple[LedgerKey, Message]] = {}
        self.duplicate: Counter[LedgerKey] = Counter()
        self.quarantined: Counter[LedgerKey] = Counter()
        self.rate_limited: Counter[LedgerKey] = Counter()
        self.reasons: Counter[str] = Counter()
        self.quarantine: dict[bytes, Quarantined] = {}
        self.devices: dict[str, DeviceChange] = {}
        self.acks: defaultdict[str, list[str]] = defaultdict(list)
        """By topic: ids that a device has asked to be told of."""

    @property
    def received(self) -> int:
        """Messages counted so far."""
        ledgers = (self.duplicate, self.quarantined, self.rate_limited)
        return len(self.pending) + sum(ledger.total() for ledger in ledgers)


class BatchBuilder:
    """Puts messages into a batch, one by one."""

    def __init__(
        self, registry: Registry, hot_days: int, limiter: RateLimiter | None = None
    ) -> None:
        self.batch = Batch()
        self.registry = registry
        self._hot_s = hot_days * DAY_S
        self._limiter = limiter

    def add(self, publish: Publish) -> None:
        """Put one message where it belongs."""
        try:
            route, device, message = decode(publish, self.registry)
        except InvalidMessageError as error:
            if not is_downward(publish.topic):
                self.quarantine(publish, error)
            return
        batch, received_at, device_id = self.batch, publish.received_at, device.id
        batch.raw.append(rows.raw_row(publish, route))
        if message.ack:
            batch.acks[route.ack_topic].append(str(message.message_id))
        time, suspect = event_time(message.timestamp, received_at)
        late = time < received_at - LATE_S or (isinstance(message, Telemetry) and message.backlog)
        message_id = message.message_id.bytes
        key, name = (utc_day(received_at), device_id), (device_id, message_id)
        change = batch.devices.get(device_id)
        if change is None:
            change = batch.devices[device_id] = DeviceChange(received_at)
        change.seen = received_at
        if self._limiter and not self._limiter.allows(device_id, received_at, late=late):
            batch.rate_limited[key] += 1
            if isinstance(message, Telemetry) and message.seq is not None:
                change.count(message.seq, time)
        elif name in batch.pending:
            batch.duplicate[key] += 1
        else:
            batch.pending[name] = key, message
            _change(change, message, time, live=not late)
            arrival = (message_id, time, received_at, suspect)
            self._store(publish, device, message, arrival)

    def _store(self, publish: Publish, device: Device, message: Message, arrival: Arrival) -> None:
        """Give the message's table its row (rule 5)."""
        batch, (message_id, time, received_at, suspect) = self.batch, arrival
        if time < received_at - self._hot_s and not isinstance(message, Inference):
            row = rows.cold_row(message_id, device, received_at)
            batch.tables[rows.COLD.name].packed.append(row)
            return
        table, pack = _PACKED[type(message)]
        packed, doubtful = batch.tables[table.name]
        packed.append(pack(message, device, arrival))
        if table.by_day:
            batch.days.add((table.name, utc_day(time)))
        if suspect or time > received_at or publish.flags & _REDELIVERED:
            doubtful.append(message_id)

    def quarantine(self, publish: Publish, error: InvalidMessageError) -> None:
        """Set a message aside with the reason."""
        device_id = _device_id(publish.topic)
        received_at = publish.received_at
        item = Quarantined(publish, device_id, error.reason, error.detail, received_at)
        before = self.batch.quarantine.get(item.fingerprint)
        self.batch.quarantine[item.fingerprint] = before.again(publish) if before else item
        self.batch.reasons[error.reason] += 1
        registered = device_id if device_id and device_id in self.registry else ""
        self.batch.quarantined[utc_day(received_at), registered] += 1


_PACKED: Final[dict[type[Message], tuple[Table, Callable[..., bytes]]]] = {
    Telemetry: (rows.TELEMETRY, rows.telemetry_row),
    Inference: (rows.INFERENCE, rows.inference_row),
    Status: (rows.STATUS, rows.status_row),
    Log: (rows.LOGS, rows.log_row),
}
"""Where a message goes, and how it is packed."""


def _change(change: DeviceChange, message: Message, time: float, *, live: bool) -> None:
    if isinstance(message, Telemetry):
        change.read(message, time, live=live)
    elif isinstance(message, Status):
        change.tell(message)
    else:
        change.hear(live=live)


def utc_day(epoch_s: float) -> int:
    """The day since 1970 on which the database puts this time, which it rounds to microseconds."""
    return int((epoch_s + 0.5e-6) // DAY_S)


def build_batch(
    messages: Iterable[Publish],
    registry: Registry,
    hot_days: int,
    limiter: RateLimiter | None = None,
) -> Batch:
    """Everything that storing these messages writes; without a limiter nobody is limited."""
    builder = BatchBuilder(registry, hot_days, limiter)
    for message in messages:
        builder.add(message)
    return builder.batch


def refused_batch(message: Publish, registry: Registry, hot_days: int, detail: str) -> Batch:
    """The one message of a batch that the database refuses, set aside."""
    builder = BatchBuilder(registry, hot_days)
    builder.quarantine(message, InvalidMessageError("database_refused", detail))
    return builder.batch


def _device_id(topic: bytes) -> str | None:
    try:
        return parse_route(topic).device_id
    except InvalidMessageError:
        return None
