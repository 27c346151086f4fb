"""Rules of ota_api/rollouts/offers.py where many are recorded at once, and of gathering.py."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from psycopg import AsyncConnection

from ota_api.background import running
from ota_api.gathering import Gathered
from ota_api.resources import POOL_MAX, open_resources
from ota_api.rollouts.offers import Deployment, Offer, record_offers
from tests.ota_api.conftest import Ota
from tests.ota_api.test_rollouts import VERSION, Fleet

NEXT = "v1.1.0"


async def record(ota: Ota, offers: Sequence[Offer]) -> list[Deployment | None]:
    url = ota.settings.database_url.get_secret_value()
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        return await record_offers(connection, datetime.now(UTC), offers)


def test_many_at_once(ota: Ota) -> None:
    fleet = Fleet(ota, 4)
    older = UUID(fleet.roll_out())
    newer = UUID(fleet.roll_out(release_id=fleet.publish(NEXT, 2)["id"]))
    stopped = UUID(fleet.roll_out(release_id=fleet.publish("v1.2.0", 3)["id"]))
    assert ota.send("POST", f"/rollouts/{stopped}/pause", json={"reason": "x"}).status_code == 200
    one, two, three, four = fleet.devices

    first = asyncio.run(record(ota, [Offer(older, device, VERSION, None) for device in (one, two)]))
    assert [(d.rollout_id, d.state) for d in first if d] == [(older, "pending")] * 2
    second = asyncio.run(
        record(
            ota,
            [
                Offer(newer, one, NEXT, VERSION, [older]),
                Offer(newer, three, NEXT, NEXT),
                Offer(stopped, four, "v1.2.0", None, [older, newer]),
                Offer(older, two, VERSION, None),
                Offer(newer, one, NEXT, VERSION, [older]),
            ],
        )
    )
    states = [found and (found.rollout_id, found.state) for found in second]
    assert states == [
        (newer, "pending"),
        (newer, "already-installed"),
        None,
        (older, "pending"),
        (newer, "pending"),
    ]
    assert second[0] == second[4]
    assert second[3] == first[1], "rule 1"
    rows = ota.rows("SELECT rollout_id, device_id, state, reason FROM deployments ORDER BY id")
    assert rows == [
        (older, one, "aborted", "superseded"),
        (older, two, "pending", None),
        (newer, one, "pending", None),
        (newer, three, "already-installed", None),
    ]
    events = Counter(ota.rows("SELECT state, reason FROM deployment_events"))
    assert events == {
        ("pending", None): 3,
        ("already-installed", None): 1,
        ("aborted", "superseded"): 1,
    }


async def test_work_that_misses_a_cancellation_ends_all_the_same() -> None:
    missed = 0

    async def work() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if missed:
                    raise
                missed += 1

    async with asyncio.timeout(10):
        async with running(work()):
            await asyncio.sleep(0)
    assert missed == 1


async def test_the_catalogue_is_read_while_requests_hold_all_connections(ota: Ota) -> None:
    async with open_resources(ota.settings) as resources, asyncio.timeout(4):
        ota.publish(ota.signer.model())

        async def ask() -> int:
            async with resources.pool.connection() as connection:
                everybody.release()
                await all_are_here.wait()
                return (await resources.catalogues.as_of(connection)).version

        everybody, all_are_here = asyncio.Semaphore(0), asyncio.Event()
        asking = [asyncio.create_task(ask()) for _ in range(POOL_MAX)]
        for _ in asking:
            await everybody.acquire()
        all_are_here.set()
        assert len(set(await asyncio.gather(*asking))) == 1


async def test_gathered_while_an_answer_is_under_way() -> None:
    batches: list[list[int]] = []

    async def answer(asked: Sequence[int]) -> list[int]:
        batches.append(list(asked))
        await asyncio.sleep(0)
        if 7 in asked:
            raise ValueError("seven")
        return [number * 10 for number in asked]

    gathered = Gathered(answer, 3)
    assert await gathered.ask(1) == 10
    asking = [asyncio.ensure_future(gathered.ask(number)) for number in (1, 2, 3, 4, 7, 8)]
    gone = asyncio.ensure_future(gathered.ask(9))
    await asyncio.sleep(0)
    gone.cancel()
    told = await asyncio.gather(*asking, gone, return_exceptions=True)
    assert told[:3] == [10, 20, 30]
    assert [str(error) for error in told[3:6]] == ["seven"] * 3
    assert isinstance(told[6], asyncio.CancelledError)
    assert batches == [[1], [1, 2, 3], [4, 7, 8], [9]]
    with pytest.raises(ValueError, match="seven"):
        await gathered.ask(7)
    assert await gathered.ask(5) == 50
