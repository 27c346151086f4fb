"""A network between two servers that can be cut, and can go silent while both ends look fine."""

import selectors
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time at all: close() sends RST, and what has not left is lost."""


class Proxy:
    """Forwards TCP connections to an address; one thread for all of them."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._stuck: set[socket.socket] = set()
        self._to_client_left: int | None = None
        self._to_server_left: int | None = None
        self._silence: tuple[bytes, int] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self.cut()
        with self._lock:
            for end in self._stuck:
                end.close()
        self._listener.close()

    def cut(self) -> int:
        """Reset the connections that work; returns how many."""
        with self._lock:
            ends, self._peers = set(self._peers), {}
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()
        return len(ends) // 2

    def cut_within(self, to_client_bytes: int) -> None:
        """Cut once so many more bytes have been forwarded to a client, in midst of a packet."""
        with self._lock:
            self._to_client_left = to_client_bytes

    def silence_within(self, to_server_bytes: int, *, after: bytes = b"") -> None:
        """Fall silent once so many more bytes have been forwarded to the server; counted from
        where a client has asked for something with these words in it."""
        with self._lock:
            self._silence = (after, to_server_bytes)

    def silence(self) -> int:
        """Forward nothing more on today's connections, which stay open; returns how many."""
        with self._lock:
            ends, self._peers = set(self._peers), {}
            self._stuck |= ends
        return len(ends) // 2

    @property
    def silent(self) -> int:
        """How many connections have fallen silent."""
        with self._lock:
            return len(self._stuck) // 2

    def _run(self) -> None:
        while not self._stopping.is_set():
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                with self._lock:  # a cut does not close one while it is registered
                    for end in self._peers:
                        selector.register(end, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select(0.02)]
            for end in ready:
                if end is self._listener:
                    self._accept()
                else:
                    self._forward(end)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, 1)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.settimeout(1)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._peers |= {client: server, server: client}

    def _forward(self, end: socket.socket) -> None:
        """What an end has to say; when it ends, or its peer takes nothing, both end."""
        with self._lock:
            peer = self._peers.get(end)
            if peer is None:
                return
            data = b""
            with suppress(OSError):
                data = end.recv(65_536)
            from_client = end.getsockname() == self._listener.getsockname()
            data, ended, silent = self._limit(data, to_server=from_client)
            try:
                peer.sendall(data)
            except OSError:
                ended = True
            if silent or ended:
                for one in (end, peer):
                    self._peers.pop(one, None)
                    if silent:
                        self._stuck.add(one)
                    else:
                        one.close()

    def _limit(self, data: bytes, *, to_server: bool) -> tuple[bytes, bool, bool]:
        """What of it is forwarded, and whether the connection then ends, or falls silent."""
        if to_server and self._silence and self._silence[0] in data:
            self._to_server_left, self._silence = self._silence[1], None
        left = self._to_server_left if to_server else self._to_client_left
        if left is None:
            return data, not data, False
        reached = len(data) > left
        rest = None if reached else left - len(data)
        if to_server:
            self._to_server_left = rest
        else:
            self._to_client_left = rest
        return data[:left], not data or (reached and not to_server), reached and to_server
