"""The executor that the settings name, and the queue of each step."""

import subprocess
import sys
from itertools import pairwise

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.conftest import ROOT
from zenthos_assets.definitions import build_definitions
from zenthos_assets.executors import ARCHIVE_QUEUE, BUILD_QUEUE, executor_for
from zenthos_assets.parquet import ALL_BUCKETS
from zenthos_assets.resources import Platform
from zenthos_assets.silver.shards import piece
from zenthos_assets.worker import create_app
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings

CELERY = Settings(
    executor="celery", celery_broker_url=SecretStr("amqp://zenthos:hidden@broker.example:5672/")
)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(), "in_process"),
        (CELERY, "celery"),
        (Settings(executor="k8s"), "k8s"),
    ],
)
def test_the_settings_name_the_executor_of_every_job(settings: Settings, name: str) -> None:
    definitions = build_definitions(Platform(), executor=executor_for(settings))
    for job in definitions.jobs or ():
        assert definitions.resolve_job_def(job.name).executor_def.name == name


def test_celery_without_a_broker_says_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="set ZENTHOS_CELERY_BROKER_URL=amqp://"):
        executor_for(Settings(executor="celery"))


def test_the_webserver_never_sees_the_password_of_the_broker() -> None:
    definitions = build_definitions(Platform(), executor=executor_for(CELERY))
    snapshot = RepositorySnap.from_def(definitions.get_repository_def())
    assert "telemetry" in dg.serialize_value(snapshot)
    assert "hidden" not in dg.serialize_value(snapshot)


def test_archiving_has_a_queue_of_its_own() -> None:
    definitions = build_definitions(Platform())
    queues = {
        job: {
            node.tags.get(DAGSTER_CELERY_QUEUE_TAG, BUILD_QUEUE)
            for node in definitions.resolve_job_def(job).nodes
        }
        for job in ("archive", "daily", "train_and_release")
    }
    assert queues == {
        "archive": {ARCHIVE_QUEUE},
        "daily": {BUILD_QUEUE},
        "train_and_release": {BUILD_QUEUE},
    }


def test_workers_acknowledge_what_they_have_finished_and_take_no_more_than_one() -> None:
    configuration = create_app(CELERY).conf
    assert configuration.task_acks_late
    assert not configuration.task_reject_on_worker_lost
    assert configuration.worker_prefetch_multiplier == 1
    assert configuration.task_default_queue == BUILD_QUEUE
    assert set(configuration.accept_content) == {"json"}


def test_a_worker_forks_before_it_loads_polars() -> None:
    code = "import sys, zenthos_assets.worker; sys.exit('polars' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@given(st.integers(1, 256))
def test_pieces_of_a_day_hold_every_bucket_once(count: int) -> None:
    ranges = [piece(number, count).buckets for number in range(count)]
    assert (ranges[0][0], ranges[-1][1]) == ALL_BUCKETS
    assert all(end == begin for (_, end), (begin, _) in pairwise(ranges))
    assert all(begin < end for begin, end in ranges)
