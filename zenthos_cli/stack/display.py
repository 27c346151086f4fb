"""The stack on a terminal: a live table while it starts and stops, lines where there is none."""

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from zenthos_cli.stack.plan import State
from zenthos_cli.stack.state import ServiceStatus, StackStatus

_STYLES: Final = {
    State.READY: "green",
    State.DONE: "green",
    State.FAILED: "bold red",
    State.RESTARTING: "yellow",
    State.STARTING: "cyan",
    State.STOPPING: "cyan",
}
_BUSY: Final = (State.STARTING, State.STOPPING, State.RESTARTING)


class LiveDisplay:
    """Progress of a start or stop; without a terminal, a line for each change since `known`."""

    def __init__(self, console: Console, known: StackStatus | None = None) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=8)
        self._spinners: dict[str, Spinner] = {}
        services = known.services if known else {}
        self._said = {name: service.state for name, service in services.items()}

    def __enter__(self) -> "LiveDisplay":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Show what is being done."""
        if self._console.is_terminal:
            self._live.update(Spinner("dots", text))
        else:
            self._console.print(text)

    def warn(self, text: str) -> None:
        """Say something that stays on the screen."""
        self._console.print(text, style="yellow", soft_wrap=True, markup=False)

    def show(self, status: StackStatus) -> None:
        """Show how far the services are."""
        if self._console.is_terminal:
            self._live.update(self._table(status))
            return
        for name, service in status.services.items():
            if self._said.get(name) != service.state:
                self._said[name] = service.state
                if service.state not in (State.WAITING, State.STARTING, State.STOPPING):
                    self._console.print(_line(name, service))

    def _table(self, status: StackStatus) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, service in status.services.items():
            mark = self._spinner(name) if service.state in _BUSY else _mark(service.state)
            table.add_row(mark, name, _state(service.state), _duration(service))
        return table

    def _spinner(self, name: str) -> Spinner:
        """The same one at each refresh, or it would not turn."""
        return self._spinners.setdefault(name, Spinner("dots"))


def status_table(status: StackStatus) -> Table:
    """What `zenthos status` prints."""
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for title in ("service", "state", "pid", "port", "uptime", "restarts"):
        table.add_column(title, justify="left" if title in ("service", "state") else "right")
    for name, service in status.services.items():
        uptime = _age(time.time() - service.since) if service.state is State.READY else ""
        pid = str(service.process.pid) if service.process else ""
        port = str(service.port or "")
        table.add_row(name, _state(service.state), pid, port, uptime, str(service.restarts))
    return table


def _state(state: State) -> Text:
    return Text(state, style=_STYLES.get(state, "dim"))


def _mark(state: State) -> Text:
    marks = {State.READY: "✓", State.DONE: "✓", State.FAILED: "✗"}
    return Text(marks.get(state, "·"), style=_STYLES.get(state, "dim"))


def _duration(service: ServiceStatus) -> str:
    if service.state is State.STARTING:
        return f"{time.time() - service.since:.0f} s"
    shown = service.state in (State.READY, State.DONE) and service.took_s is not None
    return f"{service.took_s:.1f} s" if shown else ""


def _line(name: str, service: ServiceStatus) -> str:
    took = _duration(service)
    return f"{name}: {service.state}{f' ({took})' if took else ''}"


def _age(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
