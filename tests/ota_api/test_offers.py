"""Rules of ota_api/rollouts/offers.py where many are recorded at once, and of gathering.py."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import AsyncConnection

from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.background import running
from ota_api.gathering import Gathered
from ota_api.keys.service import TrustedKeyFile
from ota_api.resources import POOL_MAX, READS_MAX, open_resources
from ota_api.rollouts.offers import Deployment, Offer, record_offers
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.schemas import NewRollout
from ota_api.rollouts.service import Rollouts
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


def test_what_is_under_way_goes_on_though_an_older_release_was_offered_meanwhile(ota: Ota) -> None:
    fleet = Fleet(ota, 1)
    (device,) = fleet.devices
    fleet.roll_out()
    newer = fleet.roll_out(release_id=fleet.publish(NEXT, 2)["id"])
    offered = fleet.check_in(device)
    ota.send("POST", f"/rollouts/{newer}/pause", json={})
    assert fleet.check_in(device)["version"] == VERSION
    late = fleet.report(device, offered["deployment_id"], "downloading")
    assert late.status_code == 200
    again = fleet.check_in(device)
    assert (again["status_code"], again["version"]) == (200, NEXT)
    ota.send("POST", f"/rollouts/{newer}/resume")
    assert fleet.check_in(device)["version"] == NEXT
    states = dict(ota.rows("SELECT rollout_id::text, state FROM deployments"))
    assert sorted(states.values()) == ["aborted", "downloading"]


def test_what_is_offered_again_has_not_booted(ota: Ota) -> None:
    fleet = Fleet(ota, 1)
    (device,) = fleet.devices
    fleet.roll_out()
    fleet.update(device)
    release = fleet.publish(NEXT, 2)["id"]
    fleet.roll_out(release_id=release)
    assert fleet.check_in(device)["version"] == NEXT
    ota.send("POST", f"/releases/{release}/withdraw", json={"reason": "cold"})
    assert fleet.check_in(device)["version"] == VERSION
    [row] = ota.rows("SELECT state, confirmed_at FROM deployments WHERE state = 'pending'")
    assert row == ("pending", None)


def test_nothing_is_offered_to_a_device_that_is_decommissioned_meanwhile(ota: Ota) -> None:
    """The offer waits for the device's row before it looks at what it supersedes."""
    fleet = Fleet(ota, 1)
    (device,) = fleet.devices
    older = UUID(fleet.roll_out())
    fleet.check_in(device)
    newer = UUID(fleet.roll_out(release_id=fleet.publish(NEXT, 2)["id"]))
    offer = Offer(newer, device, NEXT, VERSION, [older])
    url = ota.settings.database_url.get_secret_value()
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url) as connection:
        connection.execute("SELECT FROM devices WHERE id = %s FOR UPDATE", [device])
        recorded = pool.submit(lambda: asyncio.run(record(ota, [offer])))
        await_lock(ota)
        connection.execute("UPDATE devices SET decommissioned_at = now()")
        connection.execute("UPDATE deployments SET state = 'aborted', reason = 'decommissioned'")
        connection.commit()
        assert recorded.result(30) == [None]
    rows = ota.rows("SELECT rollout_id, state, reason FROM deployments")
    assert rows == [(older, "aborted", "decommissioned")]


async def test_a_rollout_that_is_locked_keeps_no_other_waiting(ota: Ota) -> None:
    fleet = Fleet(ota, 2)
    locked = UUID(fleet.roll_out())
    free = UUID(fleet.roll_out(release_id=fleet.publish(NEXT, 2)["id"]))
    now, url = datetime.now(UTC), ota.settings.database_url.get_secret_value()
    async with open_resources(ota.settings) as resources, asyncio.timeout(60):
        with psycopg.connect(url) as connection:
            connection.execute("SELECT FROM rollouts WHERE id = %s FOR UPDATE", [locked])
            offer = Offer(locked, fleet.devices[0], VERSION, None)
            waiting = asyncio.create_task(resources.askers.record(now, offer))
            await asyncio.sleep(0.1)
            other = await resources.askers.record(now, Offer(free, fleet.devices[1], NEXT, None))
            assert other is not None
            assert not waiting.done()
        found = await waiting
        assert found is not None


async def test_offers_that_wait_leave_connections_to_read_devices_with(ota: Ota) -> None:
    fleet = Fleet(ota, 1)
    (device,) = fleet.devices
    now, url = datetime.now(UTC), ota.settings.database_url.get_secret_value()
    async with open_resources(ota.settings) as resources, asyncio.timeout(60):
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE rollouts")
            waiting = [
                asyncio.create_task(
                    resources.askers.record(now, Offer(uuid4(), device, VERSION, None))
                )
                for _ in range(2 * READS_MAX)
            ]
            await asyncio.to_thread(await_lock, ota)
            assert await resources.askers.read(device, []) is not None
            assert not any(task.done() for task in waiting)
        assert await asyncio.gather(*waiting) == [None] * len(waiting)


def test_a_release_that_is_withdrawn_meanwhile_has_no_rollout(ota: Ota) -> None:
    fleet = Fleet(ota, 0)
    release = UUID(str(fleet.release["id"]))
    path = f"/releases/{release}"
    url = ota.settings.database_url.get_secret_value()

    async def create(withdraw: Callable[[], None]) -> None:
        async with await AsyncConnection.connect(url) as connection:
            trail = AuditTrail(AuditRepository(connection), Actor("ada", "admin"))
            files = ota.settings.trusted_keys_file, ota.settings.root_public_key_file
            keys = TrustedKeyFile(*files).load().keys.keys
            now = datetime.now(UTC)
            rollouts = Rollouts(RolloutRepository(connection), trail, now, lambda: keys)
            await rollouts.create(NewRollout(release_id=release))
            withdraw()
            await asyncio.to_thread(await_lock, ota)

    with ThreadPoolExecutor(1) as pool:
        answers: list[Future[httpx.Response]] = []

        def withdraw() -> None:
            body = {"reason": "cold"}
            answers.append(pool.submit(lambda: ota.send("POST", f"{path}/withdraw", json=body)))

        asyncio.run(create(withdraw))
        assert answers[0].result(30).status_code == 200
    assert ota.rows("SELECT state FROM rollouts") == [("aborted",)]


def await_lock(ota: Ota) -> None:
    """Until some session of the database waits for another."""
    deadline = time.monotonic() + 14
    query = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname ="
        " current_database()"
    )
    while not ota.rows(query):
        assert time.monotonic() < deadline, "nobody waits"
        time.sleep(0.02)


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

    async with asyncio.timeout(60):
        async with running(work()):
            await asyncio.sleep(0)
    assert missed == 1


async def test_the_catalogue_is_read_while_requests_hold_all_connections(ota: Ota) -> None:
    async with open_resources(ota.settings) as resources, asyncio.timeout(60):
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
