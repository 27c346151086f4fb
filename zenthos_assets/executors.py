"""Where the steps of a run are executed: in its process, by Celery workers, or as Kubernetes jobs.

1. Nothing but names passes from step to step: assets read what others wrote from the lake and the
   databases. Workers share no disk.
2. A step is delivered until a worker has finished it. One whose worker is lost goes to another,
   which builds the same bytes (see runs.py). One that ends its own process fails its run.
3. Archiving has a queue of its own, so that no backfill stands in its way.
"""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings

ARCHIVE_QUEUE: Final = "archive"
BUILD_QUEUE: Final = "build"
"""Of every step that names no other queue."""

QUEUES: Final = (ARCHIVE_QUEUE, BUILD_QUEUE)

ON_ARCHIVE_QUEUE: Final[Mapping[str, str]] = {"dagster-celery/queue": ARCHIVE_QUEUE}
"""Tags of an op."""


def executor_for(settings: Settings) -> dg.ExecutorDefinition:
    """The executor that the settings name.

    Raises:
        ConfigurationError: where Celery's broker is not set.
    """
    match settings.executor:
        case "celery":
            from dagster_celery import celery_executor

            return celery_executor.configured(celery_config(settings), name="celery")
        case "k8s":
            from dagster_k8s import k8s_job_executor

            return k8s_job_executor
        case _:
            # Dagster's own default, a process for each step, takes 20 s where this takes 0.4
            return dg.in_process_executor


def celery_config(settings: Settings) -> dict[str, Any]:
    """What executor and workers must agree on, as the configuration of `celery_executor`.

    Raises:
        ConfigurationError: where the broker is not set.
    """
    broker = settings.celery_broker_url.get_secret_value()
    if not broker:
        raise ConfigurationError(
            "ZENTHOS_EXECUTOR=celery needs a broker:"
            " set ZENTHOS_CELERY_BROKER_URL=amqp://user:password@host:5672/"
        )
    return {
        "broker": broker,
        "backend": "rpc://",
        "config_source": {
            "task_default_queue": BUILD_QUEUE,
            "broker_transport_options": {"confirm_publish": True},
            "broker_connection_retry_on_startup": True,
            "task_acks_late": True,  # rule 2
            # a step whose delivery is void runs again elsewhere: end it here
            "worker_cancel_long_running_tasks_on_connection_loss": True,
            "worker_redirect_stdouts": False,
            "worker_prefetch_multiplier": 1,  # a waiting step goes to an idle worker
        },
    }
