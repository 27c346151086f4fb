"""How many requests somebody may make, by who it is.

1. A device: so many an hour for all it asks but binaries; those have a limit of their own, since a
   download in small ranges takes hundreds of requests.
2. A user who has logged in, and a service: so many a minute each.
3. Whoever shows no token, or one that does not verify: so many a minute for an address, an IPv6
   address counting for its /64.
4. Windows are fixed, and begin at another moment for each key, so that a fleet that was held back
   does not come back at once. Over two windows' border twice the limit may pass.
5. Answers tell what is left: `RateLimit` and `RateLimit-Policy`, as in
   draft-ietf-httpapi-ratelimit-headers; a 429 also tells `Retry-After`.
6. A limit of 0 is none. Health and metrics are not counted, nor are pages of the documentation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final
from zlib import crc32

from starlette.datastructures import QueryParams
from starlette.types import Scope

from ota_api.headers import add_header
from ota_api.limits.counters import Counter, SharedStorage
from zenthos_core.errors import ThrottledError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Identity, Role

HOUR_S: Final = 3600
MINUTE_S: Final = 60
BINARY_PATHS: Final = ("/firmware/", "/models/")
_TRUE: Final = ("true", "1", "on", "t", "y", "yes")
"""Of `download`, as the routes read it."""
_BINARY: Final = b"application/octet-stream"


@dataclass(frozen=True)
class Rate:
    """At most `most` in a window of the counter's; 0 is no limit."""

    name: str
    most: int
    counter: Counter
    who: str
    """Told to who is held back: `{key}` has made its 100 requests …"""

    async def count(self, scope: Scope, key: str) -> None:
        """Count a request; ThrottledError where it is one too many."""
        if not self.most:
            return
        window_s = self.counter.window_s
        number, into_s = divmod(self.counter.clock() + crc32(key.encode()) % window_s, window_s)
        used = await self.counter.add(f"{key}/{number:.0f}")
        left, reset_s = max(0, self.most - used), math.ceil(window_s - into_s)
        add_header(scope, b"ratelimit-policy", f'"{self.name}";q={self.most};w={window_s}')
        add_header(scope, b"ratelimit", f'"{self.name}";r={left};t={reset_s}')
        if used > self.most:
            per = "hour" if window_s == HOUR_S else "minute"
            raise ThrottledError(
                f"{self.who} {key} has made its {self.most} requests of this {per}", reset_s
            )


@dataclass(frozen=True)
class RateLimits:
    """Of rules 1 to 3."""

    device: Rate
    device_downloads: Rate
    user: Rate
    service: Rate
    public: Rate

    @classmethod
    def of(
        cls, settings: Settings, clock: Callable[[], float], shared: SharedStorage | None
    ) -> "RateLimits":
        """As the settings say."""

        def rate(name: str, most: int, window_s: int, who: str) -> Rate:
            return Rate(name, most, Counter(f"rate-{name}", window_s, clock, shared), who)

        downloads = settings.limits_device_downloads_per_hour
        return cls(
            device=rate("device", settings.limits_device_per_hour, HOUR_S, "device"),
            device_downloads=rate("device-downloads", downloads, HOUR_S, "device"),
            user=rate("user", settings.limits_user_per_minute, MINUTE_S, "user"),
            service=rate("service", settings.limits_service_per_minute, MINUTE_S, "service"),
            public=rate("public", settings.limits_public_per_minute, MINUTE_S, "address"),
        )

    async def count(self, scope: Scope, identity: Identity) -> None:
        """Of who has shown a token that verifies; ThrottledError where it is one too many."""
        await self._rate_of(scope, identity).count(scope, identity.subject)

    async def count_public(self, scope: Scope) -> None:
        """Rule 3; ThrottledError where it is one too many."""
        client = scope.get("client")
        await self.public.count(scope, network_of(client[0] if client else ""))

    def _rate_of(self, scope: Scope, identity: Identity) -> Rate:
        if identity.role is not Role.DEVICE:
            return self.user if identity.session is not None else self.service
        return self.device_downloads if asks_for_binary(scope) else self.device


def network_of(address: str) -> str:
    """An IPv6 address's /64, which one client has as its own; others as they are."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def asks_for_binary(scope: Scope) -> bool:
    """Whether the file is asked for, not what is known of it."""
    path = scope["path"]
    if "/softwaremodules/" in path:
        return "/artifacts/" in path
    if not path.startswith(BINARY_PATHS):
        return False
    query = scope["query_string"]
    if query and QueryParams(query).get("download", "").lower() in _TRUE:
        return True
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return _accepts_binary(accepted)  # the routes read the first one too


def _accepts_binary(accept: bytes) -> bool:
    return any(part.partition(b";")[0].strip().lower() == _BINARY for part in accept.split(b","))
