"""Many messages in, everything that one transaction writes out. Pure.

Rules:

1. Each message ends as exactly one of stored, duplicate or quarantined in the ledger of the UTC
   day it was received on. Of a reading or inference the database has the last word: it is
   `staged`, and stored where its insert finds no other, duplicate where it does.
2. The same message_id twice from a device in a batch is a duplicate; the first one counts.
   Another device's message of that id is another message.
3. Every message that decodes goes to the outbox as it arrived, duplicates too.
4. A reading older than the hot window goes to the outbox alone and is stored.
5. A backlog reading never moves a device's current state; what arrives moves `last_seen`.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from ingest import rows
from ingest.decode import Device, Registry, decode, is_downward, parse_route
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import Inference, Status, Telemetry, event_time
from zenthos_core.mqtt import Publish

DAY_S: Final = 86_400


LedgerKey = tuple[int, str]
"""A line of the ledger: days since 1970, and the device, '' where it is not registered."""


class Reading(NamedTuple):
    """The newest reading of a device in a batch."""

    time: float
    message: Telemetry


class Batch:
    """What one transaction writes; rows are packed for COPY."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.telemetry: list[bytes] = []
        self.inference: list[bytes] = []
        self.quarantine: list[bytes] = []
        self.staged: Counter[LedgerKey] = Counter()
        self.stored: Counter[LedgerKey] = Counter()
        self.duplicate: Counter[LedgerKey] = Counter()
        self.quarantined: Counter[LedgerKey] = Counter()
        self.reasons: Counter[str] = Counter()
        self.last_seen: dict[str, float] = {}
        self.readings: dict[str, Reading] = {}
        self.statuses: list[Status] = []
        self.telemetry_days: set[int] = set()
        self.clock_ahead = False
        """Whether a reading's clock is suspect or ahead of ours."""

    @property
    def received(self) -> int:
        """Messages counted so far."""
        ledgers = (self.staged, self.stored, self.duplicate, self.quarantined)
        return sum(ledger.total() for ledger in ledgers)


class BatchBuilder:
    """Puts messages into a batch, one by one."""

    def __init__(self, registry: Registry, hot_days: int) -> None:
        self.batch = Batch()
        self._registry = registry
        self._hot_s = hot_days * DAY_S
        self._seen: set[tuple[str, bytes]] = set()

    def add(self, publish: Publish) -> None:
        """Put one message where it belongs."""
        try:
            route, device, message = decode(publish, self._registry)
        except InvalidMessageError as error:
            if not is_downward(publish.topic):
                self.quarantine(publish, error)
            return
        batch, received_at = self.batch, publish.received_at
        batch.raw.append(rows.raw_row(publish, route))
        batch.last_seen[device.id] = received_at
        key = (utc_day(received_at), device.id)
        message_id = message.message_id.bytes
        name = (device.id, message_id)
        if name in self._seen:
            batch.duplicate[key] += 1
            return
        self._seen.add(name)
        if isinstance(message, Telemetry):
            self._add_telemetry(key, device, message, message_id, received_at)
        elif isinstance(message, Inference):
            time, _ = event_time(message.timestamp, received_at)
            batch.inference.append(rows.inference_row(message, device, time, received_at))
            batch.staged[key] += 1
        else:
            batch.stored[key] += 1
            if isinstance(message, Status):
                batch.statuses.append(message)

    def _add_telemetry(
        self, key: LedgerKey, device: Device, message: Telemetry, message_id: bytes, now: float
    ) -> None:
        batch = self.batch
        time, suspect = event_time(message.timestamp, now)
        if time < now - self._hot_s:
            batch.stored[key] += 1
            return
        row = rows.telemetry_row(
            message, message_id, device, time=time, received_at=now, suspect=suspect
        )
        batch.telemetry.append(row)
        batch.telemetry_days.add(utc_day(time))
        batch.staged[key] += 1
        if suspect or time > now:
            batch.clock_ahead = True
        if not message.backlog:
            newest = batch.readings.get(device.id)
            if newest is None or time > newest.time:
                batch.readings[device.id] = Reading(time, message)

    def quarantine(self, publish: Publish, error: InvalidMessageError) -> None:
        """Set a message aside with the reason."""
        device_id = _device_id(publish.topic)
        self.batch.quarantine.append(rows.quarantine_row(publish, device_id, error))
        self.batch.reasons[error.reason] += 1
        registered = device_id if device_id and device_id in self._registry else ""
        self.batch.quarantined[utc_day(publish.received_at), registered] += 1


def utc_day(epoch_s: float) -> int:
    """The day since 1970 on which the database puts this time, which it rounds to microseconds."""
    return int((epoch_s + 0.5e-6) // DAY_S)


def build_batch(messages: Iterable[Publish], registry: Registry, hot_days: int) -> Batch:
    """Everything that storing these messages writes."""
    builder = BatchBuilder(registry, hot_days)
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
