"""What users can set, call, publish to and measure is documented, or these tests fail."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from zenthos_core.messages import Inference, Log, Status, Telemetry
from zenthos_core.settings import Settings
from zenthos_core.topics import MessageType

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs/reference"


def environment_name(field: str) -> str:
    return f"ZENTHOS_{field.upper()}"


def default_text(field: str) -> str:
    default = Settings.model_fields[field].default
    secret = getattr(default, "get_secret_value", None)
    value = secret() if secret else default
    return "" if value is None else str(value)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_setting_is_documented(field: str) -> None:
    row = f"| `{environment_name(field)}` | {f'`{d}`' if (d := default_text(field)) else '-'} |"
    text = (REFERENCE / "settings.md").read_text()
    assert f"{row} {Settings.model_fields[field].description} |" in text


@pytest.mark.parametrize("field", Settings.model_fields)
def test_setting_is_in_the_example_environment(field: str) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert f"# {environment_name(field)}={default_text(field)}" in lines


def test_every_documented_setting_exists() -> None:
    text = (REFERENCE / "settings.md").read_text() + (ROOT / ".env.example").read_text()
    named = set(re.findall(r"\bZENTHOS_[A-Z0-9_]+", text))
    assert named <= {environment_name(field) for field in Settings.model_fields}


def test_every_command_is_documented() -> None:
    from zenthos_cli.main import app

    text = (REFERENCE / "commands.md").read_text()
    commands = getattr(get_command(app), "commands", {})
    assert commands
    assert [name for name in commands if f"zenthos {name}" not in text] == []


def test_every_route_is_documented() -> None:
    from ota_api.app import create_app

    text = (REFERENCE / "http.md").read_text()
    paths = create_app(Settings()).openapi()["paths"]
    routes = [f"{verb.upper()} {path}" for path, item in paths.items() for verb in item]
    assert routes
    assert [route for route in routes if f"`{route}`" not in text] == []


@pytest.mark.parametrize("struct", [Telemetry, Status, Inference, Log])
def test_every_message_field_is_documented(struct: type) -> None:
    text = (REFERENCE / "mqtt.md").read_text()
    assert [f for f in struct.__struct_fields__ if f"`{f}`" not in text] == []


@pytest.mark.parametrize("message_type", MessageType)
def test_every_topic_is_documented(message_type: MessageType) -> None:
    text = (REFERENCE / "mqtt.md").read_text()
    assert f"zenthos/{{device_model}}/{{device_id}}/{message_type}" in text


def test_every_metric_is_documented() -> None:
    sources = [p.read_text() for d in ("ingest", "ota_api") for p in (ROOT / d).rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'"(zenthos\.[a-z_.]+)"', text)}
    text = (REFERENCE / "metrics.md").read_text()
    assert named
    assert [name for name in named if f"`{name}`" not in text] == []


@pytest.mark.parametrize("target", ["demo", "test", "dev-up", "dev-down", "check", "setup"])
def test_readme_commands_are_make_targets(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text()
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {link}"
        for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / link).exists()
    ]
    assert broken == []
