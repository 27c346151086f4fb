"""Fetches assets to disk: bounded in size, time and places (ota_api/hooks/hosts.py)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import httpx

from ota_api.hooks.bundles import AssetError
from ota_api.hooks.hosts import GITHUB, Hosts
from ota_api.hooks.schemas import Asset
from zenthos_core.settings import Settings

MAX_REDIRECTS: Final = 5
CONNECT_S: Final = 10.0
READ_S: Final = 30.0
MIN_BYTES_PER_S: Final = 20_000
AGAIN: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class AssetUnavailableError(AssetError):
    """Perhaps later."""


@dataclass(frozen=True)
class Fetcher:
    """Of the assets of one delivery."""

    client: httpx.AsyncClient
    hosts: Hosts
    token: str

    async def fetch(self, asset: Asset, target: Path, most_bytes: int) -> Path:
        """Write an asset to a file.

        Raises:
            AssetError: for a place that is not allowed, a status, or too many bytes.
            AssetUnavailableError: where it may come if it is asked for again.
        """
        url = asset.url if self.token else asset.browser_download_url
        patience_s = READ_S + most_bytes / MIN_BYTES_PER_S
        try:
            async with asyncio.timeout(patience_s):
                await self._follow(httpx.URL(url), target, most_bytes)
        except TimeoutError:
            raise AssetUnavailableError(
                f"{asset.name} did not come within {patience_s:.0f} s"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise AssetUnavailableError(f"{asset.name} cannot be fetched: {reason}") from error
        return target

    async def _follow(self, url: httpx.URL, target: Path, most_bytes: int) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._ask(url) as answer:
                if answer.has_redirect_location:
                    url = url.join(answer.headers["location"])
                    continue
                _check_status(url, answer.status_code)
                await _write(answer, target, most_bytes)
                return
        raise AssetError(f"more than {MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def _ask(self, url: httpx.URL) -> AsyncIterator[httpx.Response]:
        address = await self.hosts.locate(url)
        headers = headers_for(url, self.token)
        async with self.client.stream(
            "GET",
            url.copy_with(host=address),
            headers=headers,
            extensions={"sni_hostname": url.host},
        ) as answer:
            yield answer


def headers_for(url: httpx.URL, token: str) -> dict[str, str]:
    """What a host is told; the token by rule 3 of hosts."""
    headers = {
        "Host": url.netloc.decode(),
        "Accept": "application/octet-stream",
        "Accept-Encoding": "identity",
        "User-Agent": "zenthos-ota",
    }
    if token and url.scheme == "https" and url.netloc.decode() in GITHUB:
        headers["Authorization"] = f"Bearer {token}"
    return headers


@asynccontextmanager
async def opened_fetcher(settings: Settings) -> AsyncIterator[Fetcher]:
    """As the settings say; no proxy, no cookies."""
    hosts = Hosts.parse(settings.github_asset_hosts)
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
        yield Fetcher(client, hosts, settings.github_token.get_secret_value())


def _check_status(url: httpx.URL, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    where = f"{url.scheme}://{url.netloc.decode()}{url.path}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in AGAIN:
        raise AssetUnavailableError(f"{where} answers {status}")
    raise AssetError(f"{where} answers {status}: a private repository takes ZENTHOS_GITHUB_TOKEN")


async def _write(answer: httpx.Response, target: Path, most_bytes: int) -> None:
    received = 0
    with target.open("wb") as file:
        async for piece in answer.aiter_raw():
            received += len(piece)
            if received > most_bytes:
                raise AssetError(f"{target.name} has more than {most_bytes} bytes")
            file.write(piece)
    announced = answer.headers.get("content-length")
    if announced is not None and received != int(announced):
        raise AssetUnavailableError(f"{target.name} ends after {received} of {announced} bytes")
