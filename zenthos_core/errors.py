"""Every error a caller may want to tell apart. The text says what to do next.

Only the HTTP edge knows status codes; only the command line knows exit codes.
"""

from collections.abc import Mapping
from types import MappingProxyType


class ZenthosError(Exception):
    """Base of all errors raised on purpose."""

    members: Mapping[str, str] = MappingProxyType({})
    """What a program may read beside the text, such as `reason`."""


class ConfigurationError(ZenthosError):
    """A setting, tool or port keeps the program from starting."""


class InvalidMessageError(ZenthosError):
    """A device message breaks the wire rules; `reason` is a stable machine-readable word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class InvalidInputError(ZenthosError):
    """What was sent or typed breaks a rule of its form."""


class NotFoundError(ZenthosError):
    """The thing asked for does not exist."""


class ConflictError(ZenthosError):
    """The thing exists already and differs; releases and devices are never overwritten."""


class AuthenticationError(ZenthosError):
    """No token, or one that does not verify."""


class PermissionDeniedError(ZenthosError):
    """The token is good but does not allow this."""


class NotEntitledError(PermissionDeniedError):
    """Releases are there, but none that this device may have now."""


class ThrottledError(ZenthosError):
    """Too many attempts; the next is heard after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(f"{detail}: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class BusyError(ZenthosError):
    """As much of this as is allowed goes on already."""


class ManifestError(ZenthosError):
    """A release manifest, its signature or its binary breaks a rule."""


class BlobNotFoundError(NotFoundError):
    """No object under that bucket and key."""


class BlobStoreError(ZenthosError):
    """Object storage cannot be reached, or refuses."""


class ArchiveError(ZenthosError):
    """What was read back from the lake is not what was written."""


class TrainingError(ZenthosError):
    """There is too little to train on, or training or conversion failed."""


class ForwardError(ZenthosError):
    """A forwarder cannot go on as things are on the other side."""


class CursorError(ForwardError):
    """The cursor of a forwarder is gone, or is of another database."""
