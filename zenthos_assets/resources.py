"""The platform as the assets reach it. Settings are read when a run asks, never at import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import httpx
import psycopg
from pydantic import PrivateAttr

from zenthos_core.blobs import BlobStore, store_of
from zenthos_core.database import connect
from zenthos_core.settings import Settings, load_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

HTTP_TIMEOUT_S = 60.0


class Platform(dg.ConfigurableResource[None]):
    """Databases, lake, OTA server and MLflow, by the settings that hold in `directory`."""

    directory: str | None = None
    _settings: Settings | None = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """Those that held when first asked for; each run and tick has a resource of its own."""
        if self._settings is None:
            self._settings = load_settings(Path(self.directory) if self.directory else None)
        return self._settings

    def store(self) -> BlobStore:
        """The data lake."""
        return store_of(self.settings)

    def ops(self) -> psycopg.Connection:
        """A new connection to the operational database; close it."""
        return connect(self.settings.database_url.get_secret_value(), application="lineage")

    def analytics(self) -> psycopg.Connection:
        """A new connection to the analytical database; close it."""
        url = self.settings.analytics_database_url.get_secret_value()
        return connect(url, application="lineage")

    def ota(self) -> httpx.Client:
        """A client of the OTA server with the lineage's service token; close it."""
        token = self.settings.service_token.get_secret_value()
        return httpx.Client(
            base_url=self.settings.ota_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=HTTP_TIMEOUT_S,
        )

    def mlflow(self) -> MlflowClient:
        """A client of the MLflow tracking server."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.settings.mlflow_url)
