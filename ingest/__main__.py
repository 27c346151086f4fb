"""`python -m ingest`: run the service until SIGTERM or SIGINT, which finish the batch in hand."""

import logging
import signal
import sys
from collections.abc import Callable
from functools import partial

from ingest.forward.forwarders import forwarders_of, running, wake_all
from ingest.health import serve
from ingest.metrics import IngestMetrics
from ingest.service import Service
from ingest.subscriber import Broker
from zenthos_core.database import connect
from zenthos_core.errors import ConfigurationError
from zenthos_core.observability import setup_logging, setup_telemetry
from zenthos_core.settings import Settings, load_settings

logger = logging.getLogger("ingest")


def make_service(settings: Settings, on_commit: Callable[[], None] = lambda: None) -> Service:
    """The service that these settings describe; it connects once it runs."""
    broker = Broker(
        settings.mqtt_host,
        settings.mqtt_port,
        settings.mqtt_username,
        settings.mqtt_password.get_secret_value(),
        client_id=f"zenthos-ingest-{settings.ingest_worker_id}",
    )
    return Service(
        broker,
        partial(
            connect,
            settings.database_url.get_secret_value(),
            application="ingest",
            autocommit=True,
        ),
        batch_max=settings.ingest_batch_max,
        batch_wait_s=settings.ingest_batch_wait_ms / 1e3,
        hot_days=settings.hot_days,
        metrics=IngestMetrics(),
        on_commit=on_commit,
    )


def main() -> int:
    """Run; returns the exit code."""
    try:
        settings = load_settings()
        setup_logging("ingest", settings.log_level)
        setup_telemetry("ingest")
        forwarders = forwarders_of(settings)
        service = make_service(settings, on_commit=partial(wake_all, forwarders))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        with (
            serve(settings.ingest_metrics_port, lambda: service.ready),
            running(forwarders),
        ):
            service.run()
    except ConfigurationError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 2
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
