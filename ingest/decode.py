"""One message in; out comes what it says, or the reason why it is quarantined. Pure.

Rules, beside those of `zenthos_core.messages`:

1. The topic names a registered device, and the payload names the same one.
2. What goes down to devices (`ota`, `ack`) is not ours: neither stored nor counted.
3. Whatever the bytes are, nothing but InvalidMessageError is raised.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

import msgspec

from ingest import pgcopy
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import Message, parse_payload
from zenthos_core.mqtt import Publish
from zenthos_core.topics import ROOT, DownwardType, downward_topic, parse_topic

_DOWNWARD: Final = frozenset(kind.encode() for kind in DownwardType)


class Device(msgspec.Struct, frozen=True):
    """A registered device; its id, and its id and farm, as packed fields of a row."""

    id: str
    id_column: bytes
    columns: bytes

    @classmethod
    def of(cls, device_id: str, farm_id: bytes) -> "Device":
        """The device of this id, on the farm of this UUID (16 bytes)."""
        id_column = pgcopy.text(device_id)
        return cls(device_id, id_column, id_column + pgcopy.binary(farm_id))


Registry = Mapping[str, Device]


class Route(msgspec.Struct, frozen=True):
    """What a topic says; `columns` are message type and topic as packed fields of a row."""

    device_id: str
    message_type: str
    ack_topic: str
    columns: bytes


def is_downward(topic: bytes) -> bool:
    """Whether this is a message to a device (rule 2)."""
    root, *levels = topic.split(b"/")
    return len(levels) == 3 and root == ROOT.encode() and levels[2] in _DOWNWARD


@lru_cache(maxsize=65_536)
def parse_route(topic: bytes) -> Route:
    """Read a topic; each is read once, since the same ones come again and again.

    Raises:
        InvalidMessageError: `unknown_topic`.
    """
    try:
        name = topic.decode()
    except UnicodeDecodeError:
        raise InvalidMessageError("unknown_topic", "the topic is not UTF-8") from None
    parsed = parse_topic(name)
    columns = pgcopy.text(parsed.message_type) + pgcopy.binary(topic)
    ack_topic = downward_topic(parsed.device_model, parsed.device_id, DownwardType.ACK)
    return Route(parsed.device_id, parsed.message_type, ack_topic, columns)


def device_ids(messages: Iterable[Publish]) -> set[str]:
    """The ids that well-formed topics name."""
    found = set()
    for topic in {message.topic for message in messages}:
        try:
            found.add(parse_route(topic).device_id)
        except InvalidMessageError:
            continue  # decode() gives the reason
    return found


def decode(publish: Publish, registry: Registry) -> tuple[Route, Device, Message]:
    """Read one message by rule 1.

    Raises:
        InvalidMessageError: `unknown_topic`, `unregistered_device`, `device_mismatch`, or what
            `parse_payload` raises.
    """
    route = parse_route(publish.topic)
    device = registry.get(route.device_id)
    if device is None:
        raise InvalidMessageError(
            "unregistered_device", f"{route.device_id} is not registered: POST /devices/register"
        )
    message = parse_payload(route.message_type, publish.payload)
    if message.device_id != device.id:
        raise InvalidMessageError(
            "device_mismatch", f"the topic names {device.id}, the payload another device"
        )
    return route, device, message
