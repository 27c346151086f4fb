"""Messages that break a rule. The same bytes for the same reason are one row that counts. Pure."""

import hashlib
from functools import cached_property

import msgspec

from zenthos_core.mqtt import Publish


class Quarantined(msgspec.Struct, frozen=True, dict=True):
    """A message that is set aside whole, with the rule that it breaks."""

    publish: Publish
    """As it came first."""

    device_id: str | None
    reason: str
    detail: str
    last_received_at: float
    occurrences: int = 1

    @cached_property
    def topic(self) -> str:
        """As the database can hold it."""
        return storable(self.publish.topic.decode(errors="replace"))

    @cached_property
    def fingerprint(self) -> bytes:
        """What is the same for the same message, and for no other."""
        head = hashlib.sha256(f"{self.reason}\n{self.topic}".encode()).digest()
        return hashlib.sha256(head + self.publish.payload).digest()

    def again(self, publish: Publish) -> "Quarantined":
        """The same once more."""
        return msgspec.structs.replace(
            self, occurrences=self.occurrences + 1, last_received_at=publish.received_at
        )


def storable(value: str) -> str:
    """Text that any UTF-8 database can hold."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
