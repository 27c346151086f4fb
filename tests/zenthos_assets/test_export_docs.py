"""What docs/reference/export.md shows is run: its commands, its SQL and its Python."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.conftest import ROOT
from tests.ota_api.conftest import make_ota_settings, running_ota
from tests.servers import MotoServer
from tests.zenthos_assets.conftest import HOUR_KEY, Farmyard, reading
from zenthos_cli.main import app
from zenthos_core import lake
from zenthos_core.blobs.s3 import Place, S3Store
from zenthos_core.tokens import Role

DOCUMENT = ROOT / "docs/reference/export.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def farm(farmyard: Farmyard, s3: MotoServer) -> Farmyard:
    """A day of readings, built, in a folder and on S3."""
    begin = datetime(2026, 11, 20, 3, tzinfo=UTC)
    times = [begin + timedelta(minutes=n) for n in range(90)]
    farmyard.receive([reading("soil-1", time) for time in times])
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.run("daily", "2026-11-20").success
    on_s3 = S3Store(Place("", ""), s3.access())
    on_s3.create_buckets([lake.GOLD])
    for key in farmyard.store.keys(lake.GOLD):
        on_s3.put(lake.GOLD, key, farmyard.store.get(lake.GOLD, key))
    return farmyard


@pytest.fixture
def _folder(
    farm: Farmyard, s3: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Where a person would be: the stack's folder, with a viewer's token, the server running."""
    settings = make_ota_settings(tmp_path / "ota", farm.ops_url).model_copy(
        update={
            "blob_url": farm.store.root.as_uri(),
            "analytics_database_url": SecretStr(farm.analytics_url),
        }
    )
    (tmp_path / "here/.zenthos").mkdir(parents=True)
    (tmp_path / "here/.zenthos/blobs").symlink_to(farm.store.root)
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "ZENTHOS_OTA_URL": settings.ota_url,
    }.items():
        monkeypatch.setenv(name, value)
    with running_ota(settings) as ota:
        monkeypatch.setenv("ZENTHOS_TOKEN", ota.token(Role.VIEWER))
        yield


@pytest.mark.usefixtures("_folder")
def test_everything_shown_works(capfd: pytest.CaptureFixture[str]) -> None:
    (commands,) = blocks("sh")
    for command in commands.splitlines():
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, (command, done.stderr)
    with duckdb.connect() as connection:
        answers = [connection.sql(query).fetchall() for query in blocks("sql")]
    assert answers[0] == [("soil-1", 11, 30.0)]
    assert answers[1] == [(1, 30.0)]
    assert [soil for _, soil in answers[2]] == [30.0, 30.0]
    for program in blocks("python"):
        exec(program, {})  # noqa: S102
    shown = capfd.readouterr().out
    assert shown.count("shape: (1, ") == 3
    assert "30.0" in shown
