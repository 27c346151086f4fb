"""The process is killed, doubled and stopped under load: nothing lost, nothing doubled."""

import random
import time
from pathlib import Path

import pytest

from tests.ingest.conftest import DEVICES, IngestProcess
from tests.ingest.load import Load, assert_exact
from tests.servers import MosquittoServer

pytestmark = pytest.mark.fault

KILLS = 100


@pytest.mark.timeout(600)
def test_a_hundred_kills(
    tmp_path: Path, ops_url: str, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    pauses = random.Random(1)
    with Load(fleet_broker, DEVICES) as load:
        for _ in range(KILLS):
            time.sleep(pauses.uniform(0.1, 0.6))
            ingest.kill()
            ingest.start()
    assert_exact(ops_url, load.published, tmp_path)
    assert len(load.published) > 10_000
