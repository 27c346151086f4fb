"""Starts, stops and describes the stack: what `zenthos up`, `down` and `status` do."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from zenthos_cli.stack.broker_plugin import build_plugin
from zenthos_cli.stack.checks import check_disk, check_ports
from zenthos_cli.stack.environment import LOOPBACK, prepare_environment
from zenthos_cli.stack.mosquitto import Mosquitto, find_mosquitto
from zenthos_cli.stack.plan import Service
from zenthos_cli.stack.services import plan_services, prepare_services
from zenthos_cli.stack.state import StackFiles, StackStatus, end_leftovers
from zenthos_cli.stack.supervisor import supervise_in_background
from zenthos_core.errors import ConfigurationError, ConflictError, ZenthosError
from zenthos_core.settings import Settings, load_settings

WATCH_EVERY_S: Final = 0.05
STOP_TIMEOUT_S: Final = 120.0
LEFTOVER_PATIENCE_S: Final = 10.0


class Display(Protocol):
    """Where progress is shown."""

    def say(self, text: str) -> None:
        """Show what is being done."""

    def warn(self, text: str) -> None:
        """Say something that stays on the screen."""

    def show(self, status: StackStatus) -> None:
        """Show how far the services are."""


@dataclass(frozen=True)
class Stack:
    """The stack of one directory."""

    directory: Path

    def settings(self) -> Settings:
        """The settings that hold now, those that `up` chose included."""
        return load_settings(self.directory)

    def files(self) -> StackFiles:
        """Its files, whether or not they exist yet."""
        wanted = load_settings(self.directory, with_stack=False)
        return StackFiles((self.directory / wanted.home).resolve())

    def status(self) -> StackStatus | None:
        """What runs now, or None where no stack runs."""
        files = self.files()
        return files.read_status() if files.running() else None

    def up(self, display: Display) -> bool:
        """Start what does not run yet and return once all is ready; False if it ran already.

        Raises:
            ZenthosError: with the reason; nothing is left running then.
        """
        files = self.files()
        with _writing_to(files.home):
            files.home.mkdir(parents=True, exist_ok=True)
            lock = files.try_lock()
            if lock is None:
                self._watch(files, display)
                return False
            with lock:
                services = self._prepare(files, display)
                supervisor = supervise_in_background(services, files, self.directory)
        try:
            self._watch(files, display, supervisor)
        except BaseException:  # Ctrl-C above all: nothing may be left half started
            self._stop(files, display)
            raise
        return True

    def down(self, display: Display) -> list[str]:
        """Stop everything in reverse order; returns the names of what was stopped."""
        files = self.files()
        status = files.read_status()
        if not files.running():
            return end_leftovers(status, patience_s=LEFTOVER_PATIENCE_S) if status else []
        if status is None or not status.supervisor.alive():
            raise ConflictError("the stack is just being prepared: wait for `zenthos up` to end")
        running = [name for name, service in status.services.items() if service.process]
        self._stop(files, display)
        return running

    def _prepare(self, files: StackFiles, display: Display) -> list[Service]:
        """Everything that must be right before the first service starts."""
        check_disk(files.home)
        old = files.read_status()
        if old is not None and end_leftovers(old, patience_s=LEFTOVER_PATIENCE_S):
            display.say("ended what a killed stack had left running")
        files.status.unlink(missing_ok=True)
        programs = self._find_broker(files.home, display)
        tokens = programs is not None and programs.plugin is not None
        environment = prepare_environment(self.directory, device_tokens=tokens)
        services = plan_services(environment, programs)
        check_ports(services)
        display.say("preparing databases and configuration")
        prepare_services(environment, programs)
        return services

    def _find_broker(self, home: Path, display: Display) -> Mosquitto | None:
        """The embedded broker's programs; None where the settings name another broker."""
        if load_settings(self.directory, with_stack=False).mqtt_host != LOOPBACK:
            return None
        display.say("looking for Mosquitto (its packages are downloaded where it is missing)")
        programs = find_mosquitto(home / "mosquitto")
        try:
            return replace(programs, plugin=build_plugin(home / "mosquitto-plugin"))
        except ConfigurationError as error:
            display.warn(f"the broker does not check device tokens, passwords serve: {error}")
            return programs

    def _watch(self, files: StackFiles, display: Display, supervisor: int | None = None) -> None:
        """Follow a start to its end; ZenthosError if it fails."""
        while True:
            status = files.read_status()
            if status is not None:
                display.show(status)
                if status.ready():
                    return
            ended = not files.running() if supervisor is None else _has_exited(supervisor)
            if ended:
                status = files.read_status()
                reason = status.error if status else None
                raise ZenthosError(
                    reason or f"the stack was stopped while it started; see {files.logs}"
                )
            time.sleep(WATCH_EVERY_S)

    def _stop(self, files: StackFiles, display: Display) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_S
        asked = False
        while files.running():
            status = files.read_status()
            if status is not None and status.supervisor.alive():
                if not asked:
                    os.kill(status.supervisor.pid, signal.SIGTERM)
                    asked = True
                display.show(status)
            if time.monotonic() > deadline:
                raise ZenthosError(f"the stack did not stop within {STOP_TIMEOUT_S:.0f} s")
            time.sleep(WATCH_EVERY_S)
        if asked and (status := files.read_status()):
            display.show(status)


def _has_exited(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG)[0] == child


@contextmanager
def _writing_to(home: Path) -> Iterator[None]:
    """Turn a full disk or missing rights into an error that says so."""
    try:
        yield
    except OSError as error:
        place = error.filename or home
        raise ZenthosError(f"cannot write to {place}: {error.strerror}") from None


def urls(settings: Settings) -> dict[str, str]:
    """Where a person looks."""
    return {
        "Dagster": settings.dagster_url,
        "API": f"{settings.ota_url}/docs",
        "MLflow": settings.mlflow_url,
    }
