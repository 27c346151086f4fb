"""Which devices are registered: kept in memory, asked again for ids that are not there."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import psycopg

from ingest.decode import Device, Registry

RELOAD_S: Final = 30.0

_ALL: Final = "SELECT id, farm_id FROM devices"
_SOME: Final = f"{_ALL} WHERE id = ANY(%s)"


class DeviceRegistry:
    """The registered devices as of at most 30 s ago; new ones are found at once."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._monotonic = monotonic
        self._connection: psycopg.Connection | None = None
        self._devices: dict[str, Device] = {}
        self._reload_at = monotonic()

    def refresh(self, device_ids: Iterable[str] = ()) -> Registry:
        """The registry, in which those of these devices are that are registered now.

        Raises:
            psycopg.Error: the database is away; the next call connects anew.
        """
        try:
            if self._monotonic() >= self._reload_at:
                self._devices = self._query(_ALL)
                self._reload_at = self._monotonic() + RELOAD_S
            unknown = [i for i in device_ids if i not in self._devices]
            if unknown:
                self._devices |= self._query(_SOME, unknown)
        except psycopg.Error:
            self.close()
            raise
        return self._devices

    def close(self) -> None:
        """Close the connection; the next refresh opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self, query: str, *parameters: object) -> dict[str, Device]:
        if self._connection is None:
            self._connection = self._connect()
        rows = self._connection.execute(query, parameters)
        return {device_id: Device.of(device_id, farm_id.bytes) for device_id, farm_id in rows}
