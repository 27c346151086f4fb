"""What is done every few seconds by one worker for all: silent devices, expired days, gauges.

Never in the way of a batch: it has a thread and a connection of its own.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from ingest.batch import utc_day
from ingest.metrics import IngestMetrics
from ingest.partitions import drop_expired, forget_cold
from ingest.presence import mark_silent, read_fleet

logger = logging.getLogger(__name__)

EVERY_S: Final = 5.0
EXPIRY_EVERY_S: Final = 600.0
_LOCK: Final = 0x7A656E686F757365  # any number that all workers agree on
_LOGGED_IDS: Final = 10


class Housekeeping:
    """A thread that keeps house while the block runs."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        metrics: IngestMetrics,
        *,
        hot_days: int,
        caught_up_at: Callable[[], float | None],
    ) -> None:
        self._connect = connect
        self._metrics = metrics
        self._hot_days = hot_days
        self._caught_up_at = caught_up_at
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
        self._expire_at = 0.0

    def __enter__(self) -> "Housekeeping":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                with self._connect() as connection:
                    self._keep_house_while_first(connection)
            except psycopg.Error as error:
                logger.info("no housekeeping for now: %s", error)  # the store says what is wrong
            finally:
                self._metrics.fleet = None

    def _keep_house_while_first(self, connection: psycopg.Connection) -> None:
        """The lock ends with the connection, so that another worker follows."""
        while not self._stopping.wait(EVERY_S):
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
            if row == (True,):
                break
        while not self._stopping.wait(EVERY_S):
            self._keep_house(connection, time.time())

    def _keep_house(self, connection: psycopg.Connection, now: float) -> None:
        listening_since = self._caught_up_at()
        if listening_since is not None:
            silent = mark_silent(connection, now=now, listening_since=listening_since)
            if silent:
                named = ", ".join(silent[:_LOGGED_IDS])
                logger.info("%d devices have fallen silent: %s", len(silent), named)
        self._metrics.fleet = read_fleet(connection, now)
        if time.monotonic() >= self._expire_at:
            # A reading of one day may arrive until the hot window has passed the day's end.
            oldest_day = utc_day(now) - self._hot_days - 1
            drop_expired(connection, oldest_day)
            forget_cold(connection, oldest_day)
            self._expire_at = time.monotonic() + EXPIRY_EVERY_S
