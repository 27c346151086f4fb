"""What a service is, in which order services start, and when a dead one is started again. Pure.

Rules:

1. A service starts when all that it needs is ready; independent ones start side by side.
2. A service stops when nothing that needs it runs any more.
3. A service that dies is started again after a wait that doubles with each death, up to a cap.
4. A service that ran well for long enough has its deaths forgotten.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from signal import Signals
from typing import Final

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
FORGIVEN_AFTER_S: Final = 120.0


class State(StrEnum):
    """Where a service is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"
    """A task that has run to its end."""


UP: Final = frozenset({State.READY, State.DONE})
"""States in which those who need a service may start."""


def always_ready() -> bool:
    """Probe of a program that is ready as soon as it runs."""
    return True


def nothing() -> None:
    """For services that need no step before or after."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process of the stack."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    needs: Sequence[str] = ()
    port: int | None = None
    port_setting: str = ""
    """The setting that moves it to another port."""

    more_ports: Mapping[str, int] = field(default_factory=dict)
    """Others that it listens on, by the setting that moves each."""

    before_start: Callable[[], None] = nothing
    is_ready: Callable[[], bool] = always_ready
    """Asked again and again from a thread; must return within seconds."""

    after_start: Callable[[], None] = nothing
    """Runs once ready, before those who need it start."""

    is_task: bool = False
    """Runs to its end, instead of for ever."""

    stop_signal: Signals = Signals.SIGTERM
    start_timeout_s: float = 180.0
    stop_timeout_s: float = 20.0


def check_plan(services: Collection[Service]) -> None:
    """ValueError where a service needs one that is missing, or needs itself in the end."""
    left = {service.name: set(service.needs) for service in services}
    while left:
        startable = {name for name, needs in left.items() if not needs & left.keys()}
        missing = {need for needs in left.values() for need in needs} - {s.name for s in services}
        if missing or not startable:
            raise ValueError(f"cannot start {sorted(left)}: {sorted(missing) or 'a cycle'}")
        for name in startable:
            del left[name]


def needed_by(name: str, services: Collection[Service]) -> list[str]:
    """Names of the services that stop before this one."""
    return [service.name for service in services if name in service.needs]


@dataclass(frozen=True)
class Deaths:
    """How often a service has died lately."""

    count: int = 0

    def after(self, ran_s: float) -> "Deaths":
        """Count one more, the service having been ready for `ran_s` seconds."""
        return Deaths(1 if ran_s >= FORGIVEN_AFTER_S else self.count + 1)

    @property
    def wait_s(self) -> float:
        """Seconds to wait before the next start."""
        doublings = min(self.count - 1, 10)
        return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**doublings) if self.count else 0.0
