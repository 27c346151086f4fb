"""The broker's plugin for device tokens: compiled from infra/mosquitto/plugin where it can be.

A compiler must be installed. Headers and libraries are the system's; where it has none, they are
unpacked from the Debian packages without root, as Mosquitto is.
"""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from zenthos_cli.stack.mosquitto import TEMPLATES
from zenthos_cli.stack.packages import unpack_packages
from zenthos_core.errors import ConfigurationError

SOURCES: Final = TEMPLATES / "plugin"
FLAGS: Final = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared")
_PACKAGES: Final = ("mosquitto-dev", "libmosquitto-dev", "libjwt-dev")
_HEADERS: Final = ("mosquitto_plugin.h", "mosquitto_broker.h", "mosquitto.h", "jwt.h")
_INSTALL_HINT: Final = f"sudo apt-get install gcc libc6-dev {' '.join(_PACKAGES)}"


def build_plugin(folder: Path) -> Path:
    """The plugin in `folder`, compiled where its source has changed since.

    Raises:
        ConfigurationError: where it cannot be, saying what to install.
    """
    library = folder / f"zenthos_auth-{_digest()}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in several processes share one folder
        if not library.exists():
            _build(folder, library)
    return library


def compile_command(compiler: str, library: Path, packages: Path | None) -> list[str]:
    """How the plugin is compiled, with the headers and libraries of `packages` or the system's."""
    sources = [str(path) for path in _sources() if path.suffix == ".c"]
    command = [compiler, *FLAGS, *sources, "-o", str(library)]
    if packages is not None:
        libraries = next((packages / "usr/lib").glob("*-linux-gnu*"), packages / "usr/lib")
        command += [f"-I{packages / 'usr/include'}", f"-L{libraries}"]
        # As RPATH, which holds for what libjwt itself needs, too; RUNPATH does not.
        command.append(f"-Wl,--disable-new-dtags,-rpath,{libraries}")
    return [*command, "-ljwt"]


def _build(folder: Path, library: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ConfigurationError(f"there is no C compiler: {_INSTALL_HINT}")
    packages = None if _has_headers(compiler) else _unpack(folder / "packages")
    partial = folder / "partial.so"
    done = subprocess.run(
        compile_command(compiler, partial, packages), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = next((x for x in done.stderr.splitlines() if "error" in x), "no reason given")
        raise ConfigurationError(f"the plugin does not compile ({reason}): {_INSTALL_HINT}")
    for earlier in folder.glob("zenthos_auth-*.so"):
        earlier.unlink()
    partial.rename(library)


def _has_headers(compiler: str) -> bool:
    includes = [word for header in _HEADERS for word in ("-include", header)]
    argv = [compiler, "-E", "-x", "c", *includes, "/dev/null"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _unpack(folder: Path) -> Path:
    if not folder.exists():
        try:
            unpack_packages(folder, _PACKAGES)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"its headers could not be unpacked ({error}): {_INSTALL_HINT}"
            ) from None
    return folder


def _sources() -> list[Path]:
    return sorted(SOURCES.glob("*.[ch]"))


def _digest() -> str:
    """Of what the plugin is made of."""
    content = b"".join(path.read_bytes() for path in _sources())
    return hashlib.sha256(repr((FLAGS, content)).encode()).hexdigest()[:16]
