"""Which forwarders the settings ask for, and running them beside ingest.

The libraries of a destination are imported only where it is configured.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ingest.forward.forwarder import Forwarder
from ingest.forward.metrics import ForwardMetrics
from ingest.forward.sink import Sink
from zenthos_core.database import connect_async
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings


def forwarders_of(settings: Settings) -> list[Forwarder]:
    """One forwarder for each destination that has a URL; they are not started.

    Raises:
        ConfigurationError: a URL is none of its destination.
    """
    connect = partial(
        connect_async, settings.database_url.get_secret_value(), application="forward"
    )
    sinks, metrics = sinks_of(settings), ForwardMetrics()
    return [Forwarder(name, connect, sink, metrics) for name, sink in sinks.items()]


def sinks_of(settings: Settings) -> dict[str, Sink]:
    """The destinations by the name of their forwarder."""
    sinks: dict[str, Sink] = {}
    if url := settings.forward_amqp_url.get_secret_value():
        from ingest.forward.rabbitmq import RabbitMq

        _check("ZENTHOS_FORWARD_AMQP_URL", url, "amqp", "amqps")
        sinks["rabbitmq"] = RabbitMq(url, settings.forward_max_deliveries)
    if url := settings.forward_redis_url.get_secret_value():
        from ingest.forward.redis_streams import RedisStream

        _check("ZENTHOS_FORWARD_REDIS_URL", url, "redis", "rediss")
        sinks["redis"] = RedisStream(url, settings.forward_redis_maxlen)
    return sinks


def _check(setting: str, url: str, *schemes: str) -> None:
    """The URL holds a password: it is not shown."""
    if url.partition("://")[0] not in schemes:
        raise ConfigurationError(
            f"{setting} must begin with " + " or ".join(f"{scheme}://" for scheme in schemes)
        )


def wake_all(forwarders: Iterable[Forwarder]) -> None:
    """Something has been committed."""
    for forwarder in forwarders:
        forwarder.wake()


@contextmanager
def running(forwarders: Sequence[Forwarder]) -> Iterator[None]:
    """Forward while the block runs."""
    for forwarder in forwarders:
        forwarder.start()
    try:
        yield
    finally:
        for forwarder in forwarders:
            forwarder.stop(wait=False)
        for forwarder in forwarders:
            forwarder.stop()
