"""A Celery worker that executes steps: `python -m zenthos_assets.worker QUEUE NAME`.

It executes one at a time; more workers take more. Nothing here may load Polars: its threads do not
survive the fork of the process that executes.
"""

import sys
from argparse import ArgumentParser

from celery import Celery
from dagster_celery.executor import CeleryExecutor
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_task

from zenthos_assets.executors import QUEUES, celery_config
from zenthos_core.errors import ZenthosError
from zenthos_core.settings import Settings, load_settings


def create_app(settings: Settings) -> Celery:
    """The Celery application of workers.

    Raises:
        ConfigurationError: where the broker is not set.
    """
    app: Celery = make_app(CeleryExecutor.for_cli(**celery_config(settings)).app_args())
    create_task(app)
    return app


def main(queue: str, name: str) -> None:
    """Execute the steps of a queue until told to stop."""
    settings = load_settings()
    options = {
        "--queues": queue,
        "--hostname": f"{name}@%h",
        "--concurrency": "1",
        "--loglevel": settings.log_level,
    }
    arguments = [f"{option}={value}" for option, value in options.items()]
    create_app(settings).worker_main(["worker", "--without-gossip", "--without-mingle", *arguments])


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m zenthos_assets.worker", description=main.__doc__)
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("name", help="differs from that of every other worker on this machine")
    try:
        main(**vars(parser.parse_args()))
    except ZenthosError as error:
        sys.exit(str(error))
