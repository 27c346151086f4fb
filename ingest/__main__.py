"""`python -m ingest`: run the service until SIGTERM or SIGINT, which finish the batch in hand.

SIGHUP is SIGTERM: whoever runs the service starts it again, and it takes up where it was.
"""

import gc
import logging
import signal
import sys
from contextlib import ExitStack
from functools import partial

from ingest.connections import Connector
from ingest.forward.forwarders import forwarders_of, running, wake_all
from ingest.health import serve
from ingest.housekeeping import Housekeeping
from ingest.limits import Bucket, RateLimiter
from ingest.metrics import IngestMetrics
from ingest.service import Limits, Service
from ingest.spool import Spool
from ingest.subscriber import Broker
from zenthos_core.errors import ConfigurationError
from zenthos_core.observability import setup_logging, setup_telemetry
from zenthos_core.settings import Settings, load_settings

logger = logging.getLogger("ingest")

TRACE_RATIO = 0.05
"""Of the batches, where OTEL_TRACES_SAMPLER does not say otherwise."""


def run(settings: Settings) -> None:
    """The service that these settings describe, until a signal ends it."""
    database = Connector(
        settings.database_url.get_secret_value(),
        settings.ingest_database_timeout_s,
        settings.ingest_worker_id,
    )
    metrics = IngestMetrics()
    forwarders = forwarders_of(settings)
    with ExitStack() as stack:
        folder = settings.ingest_spool_dir or settings.home / "spool"
        spool = Spool(folder / settings.ingest_worker_id, settings.ingest_spool_max_mb * 2**20)
        service = Service(
            _broker(settings),
            database,
            stack.enter_context(spool),
            limits=_limits(settings),
            limiter=_limiter(settings),
            metrics=metrics,
            worker_id=settings.ingest_worker_id,
            on_commit=partial(wake_all, forwarders),
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: service.stop())
        stack.enter_context(serve(settings.ingest_metrics_port, lambda: service.ready))
        stack.enter_context(
            Housekeeping(
                database,
                metrics,
                hot_days=settings.hot_days,
                caught_up_at=lambda: service.caught_up_at,
            )
        )
        stack.enter_context(running(forwarders))
        _collect_garbage_rarely()
        service.run()


def _collect_garbage_rarely() -> None:
    """A message makes no cycles, and looking for them at every 700th tuple costs a tenth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _broker(settings: Settings) -> Broker:
    return Broker(
        settings.mqtt_host,
        settings.mqtt_port,
        settings.mqtt_username,
        settings.mqtt_password.get_secret_value(),
        client_id=f"zenthos-ingest-{settings.ingest_worker_id}",
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        batch_max=settings.ingest_batch_max,
        hot_days=settings.hot_days,
        spool_after_s=settings.ingest_spool_after_s,
    )


def _limiter(settings: Settings) -> RateLimiter:
    live = Bucket(settings.ingest_rate_per_s, settings.ingest_burst)
    late = Bucket(settings.ingest_backlog_rate_per_s, settings.ingest_backlog_burst)
    return RateLimiter(live, late)


def main() -> int:
    """Run; returns the exit code."""
    try:
        settings = load_settings()
        setup_logging("ingest", settings.log_level)
        setup_telemetry("ingest", trace_ratio=TRACE_RATIO)
        run(settings)
    except ConfigurationError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 2
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
