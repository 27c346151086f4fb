"""Which services the settings leave to the embedded stack."""

import os
from pathlib import Path

import pytest

from zenthos_cli.stack.environment import prepare_environment
from zenthos_cli.stack.plan import Service
from zenthos_cli.stack.services import plan_services


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ZENTHOS_"):
            monkeypatch.delenv(name)


def workers(folder: Path, *lines: str) -> list[Service]:
    (folder / ".env").write_text("\n".join(lines))
    services = plan_services(prepare_environment(folder), None)
    return [service for service in services if service.name.startswith("celery-")]


def test_steps_in_process_need_no_workers(tmp_path: Path) -> None:
    assert workers(tmp_path) == []


def test_celery_has_a_worker_that_archives_and_as_many_that_build_as_are_set(
    tmp_path: Path,
) -> None:
    url = "amqp://zenthos:secret@broker.example:5672/"
    found = workers(
        tmp_path,
        "ZENTHOS_EXECUTOR=celery",
        "ZENTHOS_CELERY_WORKERS=3",
        f"ZENTHOS_CELERY_BROKER_URL={url}",
    )
    assert [(s.name, *s.command[-2:]) for s in found] == [
        ("celery-archive", "archive", "archive"),
        ("celery-build-1", "build", "build-1"),
        ("celery-build-2", "build", "build-2"),
        ("celery-build-3", "build", "build-3"),
    ]
    for service in found:
        assert service.environment["ZENTHOS_CELERY_BROKER_URL"] == url
        assert not any("secret" in word for word in service.command)
