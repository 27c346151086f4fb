"""What happens while the database is away for long: messages go to the spool, and from there into
the database once it is back, in the order of their arrival and before anything newer."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import islice

import psycopg

from ingest.batch import build_batch
from ingest.decode import device_ids
from ingest.limits import RateLimiter
from ingest.metrics import IngestMetrics
from ingest.pipeline import OnStored
from ingest.registry import DeviceRegistry
from ingest.spool import Entry, Spool, SpoolFullError
from ingest.store import DatabaseAwayError, Store, Work
from zenthos_core.mqtt import Publish

logger = logging.getLogger(__name__)


class Outage:
    """One worker's spool, filled and emptied."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        registry: DeviceRegistry,
        limiter: RateLimiter,
        metrics: IngestMetrics,
        *,
        batch_max: int,
        hot_days: int,
    ) -> None:
        self._spool = spool
        self._store = store
        self._registry = registry
        self._limiter = limiter
        self._metrics = metrics
        self._batch_max = batch_max
        self._hot_days = hot_days
        self._full = False

    @property
    def pending(self) -> bool:
        """Whether the spool holds messages, which come before anything newer."""
        return self._spool.size_bytes > 0

    def keep(self, messages: Sequence[Publish]) -> bool:
        """Whether the messages are safe in the spool; said once when it takes no more."""
        try:
            self._spool.append(messages, time.time())
        except SpoolFullError as error:
            if not self._full:
                logger.error("the broker keeps the messages from here on: %s", error)  # noqa: TRY400
            self._full = True
            return False
        self._full = False
        self._metrics.spooled.add(len(messages))
        self._metrics.set_spool_bytes(self._spool.size_bytes)
        return True

    def replay(self, on_stored: OnStored, on_progress: Callable[[], None]) -> None:
        """Store all that the spool holds.

        Raises:
            DatabaseAwayError: the rest stays in the spool.
        """
        if not self.pending:
            return
        began, replayed = time.monotonic(), 0
        try:
            entries = self._spool.read(self._store.replayed())
            while chunk := list(islice(entries, self._batch_max)):
                self._store_chunk(chunk, on_stored)
                replayed += len(chunk)
                on_progress()
        except psycopg.Error as error:
            raise DatabaseAwayError(error) from error
        self._spool.clear()
        self._metrics.set_spool_bytes(0)
        seconds = time.monotonic() - began
        logger.info("replayed %d messages from the spool in %.1f s", replayed, seconds)

    def _store_chunk(self, chunk: Sequence[Entry], on_stored: OnStored) -> None:
        messages, end = [entry.publish for entry in chunk], chunk[-1].end
        registry = self._registry.refresh(device_ids(messages))
        batch = build_batch(messages, registry, self._hot_days, self._limiter)
        self._store.store(Work(messages, batch, end), registry, on_stored)
        self._spool.remove(end)
        self._metrics.set_spool_bytes(self._spool.size_bytes)
