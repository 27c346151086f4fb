"""How the plugin is made, and what happens where it cannot be."""

import re
import shutil
from pathlib import Path

import pytest

from zenthos_cli.stack import broker_plugin, mosquitto
from zenthos_cli.stack.broker_plugin import FLAGS, SOURCES, build_plugin
from zenthos_cli.stack.mosquitto import Broker, Mosquitto
from zenthos_core.errors import ConfigurationError
from zenthos_core.tokens import DEVICE_TOKEN_S


def only_these_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Path:
    """A machine with no other programs than these."""
    tools = folder / "bin"
    tools.mkdir()
    for name in names:
        program = shutil.which(name)
        assert program is not None
        (tools / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tools))
    return tools


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the plugin's source, to be changed."""
    copy = tmp_path / "source"
    shutil.copytree(SOURCES, copy)
    monkeypatch.setattr(broker_plugin, "SOURCES", copy)
    return copy


@pytest.fixture
def folder(tmp_path: Path, token_programs: Mosquitto) -> Path:
    """A folder to build in, with the packages that another build has unpacked, if it had to."""
    assert token_programs.plugin is not None
    packages = token_programs.plugin.parent / "packages"
    if packages.exists():
        (tmp_path / "plugin").mkdir()
        (tmp_path / "plugin" / "packages").symlink_to(packages)
    return tmp_path / "plugin"


def test_warnings_are_errors() -> None:
    assert {"-Wall", "-Wextra", "-Werror"} <= set(FLAGS)


def test_it_is_compiled_once(folder: Path, sources: Path) -> None:
    library = build_plugin(folder)
    made = library.stat()
    assert build_plugin(folder) == library
    assert library.stat() == made
    assert not (folder / "partial.so").exists()


def test_a_change_of_its_source_makes_it_anew(folder: Path, sources: Path) -> None:
    before = build_plugin(folder)
    with (sources / "rules.c").open("a") as file:
        file.write("/* changed */\n")
    after = build_plugin(folder)
    assert [*folder.glob("*.so")] == [after]
    assert after != before


def test_source_that_does_not_compile_says_so(folder: Path, sources: Path) -> None:
    (sources / "rules.c").write_text("int unused(int argument) { return 0; }\n")
    with pytest.raises(ConfigurationError, match="unused parameter"):
        build_plugin(folder)
    assert not [*folder.glob("*.so")]


def test_without_a_compiler_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_these_on_path(tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match="no C compiler: sudo apt-get install gcc libc6-d"):
        build_plugin(tmp_path / "plugin")


def test_without_headers_or_a_package_server_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = only_these_on_path(tmp_path, monkeypatch, "sh", "mkdir", "mktemp", "rm")
    (tools / "cc").symlink_to("/bin/false")
    with pytest.raises(ConfigurationError, match=r"headers could not be unpacked .*libjwt-dev"):
        build_plugin(tmp_path / "plugin")


def test_without_it_devices_sign_in_by_password(
    tmp_path: Path, mosquitto_programs: Mosquitto
) -> None:
    broker = Broker(mosquitto_programs, tmp_path, 1883, public_key_file=tmp_path / "key.pem")
    broker.configure()
    assert not broker.checks_tokens
    assert "plugin" not in broker.config_file.read_text()


def test_with_it_they_sign_in_by_token(tmp_path: Path, token_programs: Mosquitto) -> None:
    broker = Broker(token_programs, tmp_path, 1883, public_key_file=tmp_path / "key.pem")
    broker.configure()
    assert broker.checks_tokens
    assert f"\nplugin {token_programs.plugin}\n" in broker.config_file.read_text()
    assert "$" not in broker.config_file.read_text()


def test_the_plugin_and_the_issuer_agree() -> None:
    text = (SOURCES / "zenthos_auth.h").read_text()
    life = re.search(r"#define TOKEN_LIFE_S \((\d+) \* 24 \* 3600\)", text)
    assert life is not None
    assert int(life[1]) * 24 * 3600 == DEVICE_TOKEN_S


def test_every_listener_bounds_its_connections() -> None:
    for name in ("mosquitto.conf", "tls.conf"):
        text = (mosquitto.TEMPLATES / name).read_text()
        assert text.count("\nlistener ") == text.count("\nmax_connections ") == 1
