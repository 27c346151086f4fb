"""One service as a process: start it, wait until it is ready, end it and all that it started."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from zenthos_cli.stack.plan import Service
from zenthos_core.errors import ZenthosError

PROBE_EVERY_S: Final = 0.15
LOG_MAX_BYTES: Final = 20_000_000
TAIL_LINES: Final = 12


class StartError(ZenthosError):
    """A service did not become ready; the text says which, why, and how its log ends."""


class ServiceProcess:
    """A service that has been started. Leads a process group of its own."""

    def __init__(self, service: Service, log: Path, directory: Path) -> None:
        self.service = service
        self._log = log
        _rotate(log)
        with log.open("ab") as output:
            self._log_offset = output.tell()
            self._started = time.monotonic()
            self._ready: float | None = None
            # A plain Popen, with nothing awaited: a cancelled start leaves no process behind.
            self._process = subprocess.Popen(
                service.command,
                cwd=directory,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **service.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, and id of the process group."""
        return self._process.pid

    @property
    def took_s(self) -> float:
        """Seconds it took to become ready."""
        return (self._ready or time.monotonic()) - self._started

    @property
    def served_s(self) -> float:
        """Seconds since it became ready, 0 where it never did."""
        return 0.0 if self._ready is None else time.monotonic() - self._ready

    async def until_ready(self) -> None:
        """Return once the service is ready, or StartError."""
        limit_s = self.service.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                if self.service.is_task:
                    await self.exited()
                else:
                    await self._until(self.service.is_ready)
                await asyncio.to_thread(self.service.after_start)
        except TimeoutError:
            raise self._start_error(f"was not ready within {limit_s:.0f} s") from None
        if self._process.returncode:
            raise self._start_error(f"failed with exit code {self._process.returncode}")
        self._ready = time.monotonic()

    async def exited(self) -> int:
        """Wait for its end; returns the exit code."""
        if self._process.poll() is None:
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            descriptor = os.pidfd_open(self.pid)
            loop.add_reader(descriptor, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        return self._process.wait()

    async def end(self) -> None:
        """Stop it politely, after its time-out for good, and whatever it has left behind."""
        if self._process.poll() is None:
            self._process.send_signal(self.service.stop_signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.service.stop_timeout_s):
                    await self.exited()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.exited()

    async def _until(self, is_ready: Callable[[], bool]) -> None:
        while not await asyncio.to_thread(is_ready):
            if self._process.poll() is not None:
                raise self._start_error(f"stopped with exit code {self._process.returncode}")
            await asyncio.sleep(PROBE_EVERY_S)

    def _start_error(self, what: str) -> StartError:
        with self._log.open("rb") as file:
            file.seek(self._log_offset)
            lines = file.read().decode(errors="replace").strip().splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:]) or "  (nothing)"
        return StartError(f"{self.service.name} {what}; {self._log} ends with:\n{tail}")


def _rotate(log: Path) -> None:
    """Keep one older log of a size that nobody minds."""
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_suffix(".log.1"))
