"""Where assets may be fetched from (ZENTHOS_GITHUB_ASSET_HOSTS).

1. A name, such as `github.com`, allows https on port 443 of that host, unless it has an address
   that is not public. The address that was looked at is the one that is connected to.
2. An origin, such as `http://127.0.0.1:9000`, allows just that, wherever it is.
3. The token goes to GitHub's own names, over https, and nowhere else.
4. Each redirect is looked at like the first URL.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

import httpx

from ota_api.hooks.bundles import AssetError

GITHUB: Final = frozenset({"github.com", "api.github.com"})
_EMBEDDING: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))
"""IPv6 addresses that stand for IPv4 ones."""

Origin = tuple[str, str, int]


def origin_of(url: httpx.URL) -> Origin:
    """Scheme, host and port."""
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme, 0)


@dataclass(frozen=True)
class Hosts:
    """By rules 1 and 2."""

    names: frozenset[str]
    origins: frozenset[Origin]

    @classmethod
    def parse(cls, text: str) -> "Hosts":
        """Names and origins with commas between."""
        parts = [part.strip() for part in text.lower().split(",") if part.strip()]
        urls = [httpx.URL(part) for part in parts if "://" in part]
        names = frozenset(part for part in parts if "://" not in part)
        return cls(names, frozenset(map(origin_of, urls)))

    async def locate(self, url: httpx.URL) -> str:
        """The host or address to connect to.

        Raises:
            AssetError: for one that is not allowed.
            OSError: for a name that has no address now.
        """
        origin = origin_of(url)
        if origin in self.origins:
            return url.host
        if origin != ("https", url.host, 443) or url.host not in self.names or url.userinfo:
            raise AssetError(
                f"{url.scheme}://{url.netloc.decode()} is not in ZENTHOS_GITHUB_ASSET_HOSTS:"
                " add it if assets may come from there"
            )
        return await _public_address(url.host)


async def _public_address(host: str) -> str:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    addresses = [str(info[4][0]) for info in found]
    private = [address for address in addresses if not is_public(address)]
    if private or not addresses:
        raise AssetError(
            f"{host} is at {', '.join(private)}, which is not public: add its origin, such as"
            f" https://{host}:443, to ZENTHOS_GITHUB_ASSET_HOSTS if that is meant"
        )
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is of the internet, not of a network of one's own."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if any(parsed in network for network in _EMBEDDING):
            return False
        parsed = parsed.ipv4_mapped or parsed
    return parsed.is_global and not parsed.is_multicast
