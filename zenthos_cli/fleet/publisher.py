"""A fleet's sessions at the broker, all in one event loop."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from zenthos_cli.fleet.session import Broker, Counters, Credentials, Session
from zenthos_core.errors import ConfigurationError
from zenthos_core.mqtt import Message

SPARE_FILES = 128
CLOSE_TIMEOUT_S = 5.0
MAX_OUTSTANDING = 20_000
"""Messages of all devices that wait for their acknowledgement: bounds memory."""
TURN = 5_000
"""Messages after which the sockets get their turn: a write for each costs five times the CPU."""
StatusMessage = Callable[[str, str], Message]
"""(device id, `online` or `offline`) → what to publish."""


def allow_connections(count: int) -> None:
    """Raise the limit of open files so that `count` connections fit.

    Raises:
        ConfigurationError: where the system does not allow as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigurationError(
            f"{count} devices need {needed} open files and the limit is {hard}: "
            "raise it (`ulimit -Hn`) or simulate fewer devices"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Publisher:
    """Publishes for many devices; made by `connected`."""

    def __init__(self, sessions: Mapping[str, Session], counters: Counters) -> None:
        self._sessions = sessions
        self._turn = 0
        self.counters = counters

    async def publish(self, device_id: str, message: Message) -> None:
        """Queue a message of a device, waiting while its queue or the fleet's is full."""
        await self._sessions[device_id].publish(message)
        self._turn = (self._turn + 1) % TURN
        if not self._turn:
            await asyncio.sleep(0)
        if self.counters.outstanding >= MAX_OUTSTANDING:
            await self._ease()

    async def _ease(self) -> None:
        """Wait for many acknowledgements at once: to wake up for each one costs half the speed."""
        while self.counters.outstanding > MAX_OUTSTANDING // 2:
            self.counters.progress.clear()
            await self.counters.progress.wait()

    async def drain(self) -> None:
        """Wait until the broker has acknowledged everything."""
        for session in self._sessions.values():
            await session.drain()


@asynccontextmanager
async def connected(
    broker: Broker,
    accounts: Iterable[Credentials],
    status: StatusMessage,
    rng: random.Random,
) -> AsyncIterator[Publisher]:
    """Sessions of all accounts, each `online` while it lasts.

    On a normal end everything is acknowledged and each device has said `offline`. The failure of
    one session, see `Session.run`, ends all of them.
    """
    counters = Counters()
    sessions = {
        account.device_id: _session(broker, account, status, counters, rng) for account in accounts
    }
    allow_connections(len(sessions))
    publisher = Publisher(sessions, counters)
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(session.run()) for session in sessions.values()]
            yield publisher
            for device_id in sessions:
                await publisher.publish(device_id, status(device_id, "offline"))
            await publisher.drain()
            for session in sessions.values():
                session.close()
            _, late = await asyncio.wait(running, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _session(
    broker: Broker,
    account: Credentials,
    status: StatusMessage,
    counters: Counters,
    rng: random.Random,
) -> Session:
    return Session(
        broker,
        account,
        greeting=lambda: status(account.device_id, "online"),
        will=lambda: status(account.device_id, "offline"),
        counters=counters,
        rng=rng,
    )
