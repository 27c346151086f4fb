"""What the broker is told of devices: written at once, read by the broker a moment later.

A broker that checks device tokens is told which earlier ones are void; any other has an account
for each device.
"""

import asyncio
import logging
import secrets
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread

from zenthos_core.broker_accounts import reload_broker, set_account
from zenthos_core.errors import ConfigurationError
from zenthos_core.revocations import renew_tokens, revoke_tokens

RELOAD_DELAY_S: Final = 0.25
"""The broker reads every account at each reload: registrations of this time share one."""

_logger = logging.getLogger(__name__)


class BrokerAccounts:
    """Revocation list or password file; without either the broker is told by other means."""

    def __init__(
        self,
        password_file: Path | None,
        pid_file: Path | None,
        revocations_file: Path | None = None,
    ) -> None:
        self._password_file = password_file if revocations_file is None else None
        self._pid_file = pid_file
        self._revocations_file = revocations_file
        self._reload: asyncio.Task[None] | None = None

    async def end_earlier_tokens(self, device_id: str, now: int) -> int:
        """Returns the second at which the device's next token is to be issued."""
        if self._revocations_file is None:
            return now
        renew = partial(renew_tokens, self._revocations_file, device_id, now=now)
        return await to_thread.run_sync(renew)

    async def shut_out(self, device_id: str, now: int) -> None:
        """Let this device in with no token that was issued up to now."""
        if self._revocations_file is not None:
            revoke = partial(revoke_tokens, self._revocations_file, [device_id], now=now)
            await to_thread.run_sync(revoke)
        await self.set(device_id, secrets.token_urlsafe(32))

    async def set(self, device_id: str, token: str) -> None:
        """Where devices need an account: let this one in with that token, and no other."""
        if self._password_file is None:
            return
        await to_thread.run_sync(set_account, self._password_file, device_id, token)
        if self._reload is None or self._reload.done():
            self._reload = asyncio.create_task(self._reload_later())

    async def close(self) -> None:
        """Wait for a reload that is due."""
        if self._reload is not None:
            await self._reload

    async def _reload_later(self) -> None:
        await asyncio.sleep(RELOAD_DELAY_S)
        self._reload = None  # what is written from here on needs the next one
        if self._pid_file is None:
            return
        try:
            if not reload_broker(self._pid_file):
                _logger.warning("no broker is running to read its accounts again")
        except ConfigurationError:
            _logger.exception("the broker was not told of new accounts")
