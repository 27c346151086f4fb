"""How long a client may take to say what it wants.

1. The head of a request comes within HEAD_S of the connection or of its first byte, else the
   connection is closed: one that sends a header a minute holds nothing. So is one that sends, after
   an answer, what is no request: an empty line, or more of a body that nobody waits for.
2. Between requests a connection may be idle for KEEP_ALIVE_S.
3. At most ZENTHOS_OTA_MAX_CONNECTIONS are open; whoever comes later gets 503.
4. What is no HTTP, or has a longer path than the parser takes (64 KiB), is told so as a problem.
"""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ota_api.problems import problem

HEAD_S: Final = 15.0
KEEP_ALIVE_S: Final = 20


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's own, by rule 1."""

    _head_due: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Any byte ends uvicorn's own wait for a next request.
        if self.timeout_keep_alive_task is None and self._is_idle():
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Rule 4."""
        answer = problem(HTTPStatus.BAD_REQUEST, f"{msg.rstrip('.')}: send less, or other HTTP")
        head = [b"HTTP/1.1 400 Bad Request", b"connection: close"]
        head += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(answer.body)]))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_due is None:
            self._head_due = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _give_up(self) -> None:
        self._head_due = None
        if not self.transport.is_closing():
            self.transport.close()
