"""Where a forwarder sends to."""

from collections.abc import Sequence
from typing import Final, Protocol

from ingest.forward.envelope import Envelope

CONNECT_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 30.0
"""Longest wait for the confirmation of a batch: RabbitMQ confirms nothing while it lacks memory."""


class Sink(Protocol):
    """The other side. Used by one task; opened again after anything has failed."""

    async def open(self) -> None:
        """Connect and make what is missing there."""

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Send in order; the other side has taken all of them once this returns."""

    async def close(self) -> None:
        """Disconnect, also where `open` or `send` has failed."""
