"""Runs the services of a stack until told to stop, and starts again what dies.

A process of its own, detached from the terminal: `zenthos up` starts it with the stack's lock as an
open file, and reads the status that it writes. Nothing outlives it: the kernel ends each service
with its parent, and the keeper ends what those have started in turn.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from zenthos_cli.stack.keeper import Keeper
from zenthos_cli.stack.plan import Deaths, Service, State, needed_by
from zenthos_cli.stack.process import ServiceProcess, StartError
from zenthos_cli.stack.state import Process, ServiceStatus, StackFiles, StackStatus
from zenthos_core.errors import ZenthosError

log = logging.getLogger("zenthos.stack")


class Supervisor:
    """One run of the stack."""

    def __init__(self, services: Sequence[Service], files: StackFiles, directory: Path) -> None:
        self._services = services
        self._files = files
        self._directory = directory
        self._status = StackStatus(
            supervisor=Process.of(os.getpid()),
            started=time.time(),
            services={s.name: ServiceStatus(port=s.port, since=time.time()) for s in services},
        )
        self._running: dict[str, ServiceProcess] = {}
        self._up = {service.name: asyncio.Event() for service in services}
        self._ended = {service.name: asyncio.Event() for service in services}
        self._stop = asyncio.Event()
        self._keeper = Keeper()

    async def run(self) -> bool:
        """Start everything, keep it running, stop it in reverse order when asked to.

        Returns whether it had started well.
        """
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(name, self._stop.set)
        self._write_status()
        ends = await asyncio.gather(*map(self._supervise, self._services), return_exceptions=True)
        self._keeper.dismiss()
        for error in filter(None, ends):
            raise error
        return self._status.error is None

    async def _supervise(self, service: Service) -> None:
        """One service from its start, after all that it needs, to its end, before them."""
        try:
            await self._unless_stopping(self._live(service))
            await self._stop.wait()
        except (ZenthosError, OSError) as error:
            log.error("%s", error)  # noqa: TRY400  # the text is the whole story
            self._status.error = self._status.error or str(error)
            self._enter(service, State.FAILED)
        finally:
            self._stop.set()
            await _all(self._ended[name] for name in needed_by(service.name, self._services))
            await self._end(service)
            self._ended[service.name].set()

    async def _live(self, service: Service) -> None:
        """Start it, and start it again whenever it dies. A first start that fails is an error."""
        await _all(self._up[name] for name in service.needs)
        self._enter(service, State.STARTING)
        process = await self._start(service)
        await process.until_ready()
        self._ready(service, process)
        self._up[service.name].set()
        if service.is_task:
            await self._forget(service)
            return
        deaths = Deaths()
        while True:
            code = await process.exited()
            log.warning("%s died with exit code %s", service.name, code)
            deaths = deaths.after(process.served_s)
            process = await self._restart(service, deaths)

    async def _restart(self, service: Service, deaths: Deaths) -> ServiceProcess:
        await self._forget(service)
        self._status.services[service.name].restarts += 1
        self._enter(service, State.RESTARTING)
        await asyncio.sleep(deaths.wait_s)
        process = await self._start(service)
        try:
            await process.until_ready()
        except StartError as error:
            log.warning("%s", error)
            await process.end()
        else:
            self._ready(service, process)
        return process

    async def _start(self, service: Service) -> ServiceProcess:
        await asyncio.to_thread(service.before_start)
        process = ServiceProcess(service, self._files.log(service.name), self._directory)
        self._running[service.name] = process
        self._keeper.began(process.pid)
        self._status.services[service.name].process = Process.of(process.pid)
        self._write_status()
        return process

    def _ready(self, service: Service, process: ServiceProcess) -> None:
        self._status.services[service.name].took_s = round(process.took_s, 2)
        self._enter(service, State.DONE if service.is_task else State.READY)

    async def _end(self, service: Service) -> None:
        failed = self._status.services[service.name].state is State.FAILED
        if service.name in self._running and not failed:
            self._enter(service, State.STOPPING)
        await self._forget(service)
        if not failed:
            self._enter(service, State.STOPPED)

    async def _forget(self, service: Service) -> None:
        """End what is left of a service."""
        process = self._running.get(service.name)
        if process is not None:
            await process.end()
            del self._running[service.name]
            self._keeper.ended(process.pid)
            self._status.services[service.name].process = None
            self._write_status()

    async def _unless_stopping(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, but no longer than until the stack stops."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()
            await asyncio.wait({task})

    def _enter(self, service: Service, state: State) -> None:
        status = self._status.services[service.name]
        status.state, status.since = state, time.time()
        log.info("%s: %s", service.name, state)
        self._write_status()

    def _write_status(self) -> None:
        try:
            self._files.write_status(self._status)
        except OSError as error:  # a full disk must not end what runs
            log.error("cannot write the status: %s", error)  # noqa: TRY400


def supervise_in_background(services: Sequence[Service], files: StackFiles, directory: Path) -> int:
    """Fork a supervisor that lives on without the terminal; returns its process id.

    It holds the open lock that this process took, until it ends.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    files.logs.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    exit_code = 1
    try:
        os.setsid()
        _redirect_output(files.log("supervisor"))
        logging.basicConfig(
            filename=files.log("supervisor"),
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(message)s",
            force=True,
        )
        exit_code = 0 if asyncio.run(_run(services, files, directory)) else 1
    except BaseException:
        log.exception("the supervisor failed")
    finally:
        logging.shutdown()
        os._exit(exit_code)  # never back into the code of the command that forked


async def _run(services: Sequence[Service], files: StackFiles, directory: Path) -> bool:
    return await Supervisor(services, files, directory).run()


def _redirect_output(path: Path) -> None:
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nowhere, 0), (output, 1), (output, 2)):
        os.dup2(source, target)


async def _all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()
