"""What a person sees of an error, and of Ctrl-C."""

import httpx
import pytest
import typer
from typer.testing import CliRunner

from zenthos_cli.main import ReportingGroup, app, bypass_proxies
from zenthos_core import __version__
from zenthos_core.errors import ConfigurationError

WORDS = "port 8080 (ota-api) is in use by another program: end it, or set ZENTHOS_OTA_PORT; " * 2


def raising(error: BaseException) -> typer.Typer:
    def command() -> None:
        raise error

    failing = typer.Typer(cls=ReportingGroup)
    failing.command("fail")(command)
    failing.command("other")(lambda: None)
    return failing


def test_a_foreseen_error_is_its_message_alone() -> None:
    result = CliRunner().invoke(raising(ConfigurationError(WORDS)), ["fail"])
    assert result.exit_code == 1
    assert result.stderr == f"{WORDS}\n"


def test_a_message_is_not_read_as_markup() -> None:
    result = CliRunner().invoke(raising(ConfigurationError("not a [device]")), ["fail"])
    assert result.stderr == "not a [device]\n"


def test_ctrl_c_has_the_exit_code_of_shells() -> None:
    result = CliRunner().invoke(raising(KeyboardInterrupt()), ["fail"])
    assert result.exit_code == 130


def test_version() -> None:
    assert CliRunner().invoke(app, ["version"]).stdout == f"{__version__}\n"


@pytest.mark.parametrize("command", ["up", "down", "status", "bench"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert command in result.stdout


@pytest.mark.parametrize("before", [{}, {"no_proxy": "example.org", "NO_PROXY": "example.org"}])
def test_a_proxy_is_not_asked_for_this_machine(
    before: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    environment = dict(before)
    bypass_proxies(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(httpx.ConnectError, match="refused"):
        httpx.get("http://127.0.0.1:1")
    assert all(environment[name].startswith(value) for name, value in before.items())
