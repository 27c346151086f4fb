"""The broker: where its programs come from, its files, and how to serve them.

Mosquitto is taken from PATH; where it is not installed, the Debian packages are unpacked into a
folder without root, with the libraries that the machine lacks.
"""

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from string import Template
from typing import Final

from zenthos_cli.stack.launch import give_to_service_user, limited_command, server_command
from zenthos_cli.stack.packages import ensure_unpacked, install_hint
from zenthos_core.errors import ConfigurationError
from zenthos_core.mqtt import encode_connect

HOST: Final = "127.0.0.1"
STOP_SIGNAL: Final = Signals.SIGTERM
"""Mosquitto saves its sessions and queued messages before it ends."""

SYSTEM_FOLDERS: Final = (Path("/usr/sbin"), Path("/usr/local/sbin"))
"""Where Mosquitto is installed, which is on the PATH of root alone."""

MAX_OPEN_FILES: Final = 20_500
"""Bounds the connections: Mosquitto 2.0.11 counts each that ends twice, so that `max_connections`
lets ever more in. What is beyond it is closed at once."""

TEMPLATES: Final = Path(__file__).parents[2] / "infra" / "mosquitto"
_NOBODY: Final = encode_connect("", "", "", keep_alive_s=10, clean_start=True)
_PACKAGES: Final = ("mosquitto", "mosquitto-clients")
_PROGRAMS: Final = ("mosquitto", "mosquitto_sub", "mosquitto_pub")


@dataclass(frozen=True)
class Mosquitto:
    """Programs of Mosquitto and the folder of shared libraries they need beside the system's."""

    folders: tuple[Path, ...]
    libraries: Path | None = None
    plugin: Path | None = None
    """Checks device tokens, where it could be built; else devices sign in by the password file."""

    def program(self, name: str) -> str:
        """Path of mosquitto, mosquitto_sub or mosquitto_pub; ConfigurationError if missing."""
        path = shutil.which(name, path=os.pathsep.join(map(str, self.folders)))
        if path is None:
            raise ConfigurationError(f"{name} is missing: {install_hint(_PACKAGES)}")
        return path

    def environment(self) -> dict[str, str]:
        """The environment to run them in."""
        if self.libraries is None:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": str(self.libraries)}

    @property
    def complete(self) -> bool:
        """Whether server and clients are all there."""
        path = os.pathsep.join(map(str, self.folders))
        return all(shutil.which(name, path=path) for name in _PROGRAMS)


def find_mosquitto(unpacked: Path) -> Mosquitto:
    """Mosquitto of the system, else of the packages unpacked in `unpacked`, unpacking them first.

    Raises:
        ConfigurationError: where there is neither, saying how to install it.
    """
    installed = Mosquitto((*map(Path, os.get_exec_path()), *SYSTEM_FOLDERS))
    if installed.complete:
        return installed
    ensure_unpacked(
        unpacked, _PACKAGES, complete=lambda: _unpacked(unpacked).complete, name="Mosquitto"
    )
    return _unpacked(unpacked)


def _unpacked(folder: Path) -> Mosquitto:
    libraries = next((folder / "usr/lib").glob("*-linux-gnu*"), None)
    return Mosquitto((folder / "usr/sbin", folder / "usr/bin"), libraries)


@dataclass(frozen=True)
class Tls:
    """A second listener, and the certificate it shows (PEM)."""

    port: int
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Broker:
    """The broker's folder: configuration, accounts, and what it persists."""

    mosquitto: Mosquitto
    folder: Path
    port: int
    tls: Tls | None = None
    public_key_file: Path | None = None
    """By which the plugin verifies device tokens."""

    @property
    def password_file(self) -> Path:
        """Accounts: user name and hashed password a line."""
        return self.folder / "passwords"

    @property
    def revocations_file(self) -> Path:
        """Device tokens that are void; the plugin watches it."""
        return self.folder / "revocations"

    @property
    def pid_file(self) -> Path:
        """Written by the broker; SIGHUP to that process makes it read its accounts again."""
        return self.folder / "data" / "mosquitto.pid"

    @property
    def config_file(self) -> Path:
        """Rendered from infra/mosquitto."""
        return self.folder / "mosquitto.conf"

    @property
    def checks_tokens(self) -> bool:
        """Whether devices sign in with their token, not by the password file."""
        return self.mosquitto.plugin is not None and self.public_key_file is not None

    def configure(self) -> None:
        """Write configuration and access rules; accounts and revocations are left as they are."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        give_to_service_user(self.folder / "data")
        for kept in (self.password_file, self.revocations_file):
            kept.touch(mode=0o600)
        acl_file = self.folder / "acl"
        acl_file.write_text((TEMPLATES / "acl").read_text())
        acl_file.chmod(0o600)
        parts = ["mosquitto.conf"]
        parts += ["tls.conf"] if self.tls else []
        parts += ["device-tokens.conf"] if self.checks_tokens else []
        template = Template("".join((TEMPLATES / part).read_text() for part in parts))
        self.config_file.write_text(template.substitute(self._values()))

    def _values(self) -> dict[str, object]:
        """What the placeholders of the configuration stand for."""
        values: dict[str, object] = {
            "port": self.port,
            "data_dir": self.folder / "data",
            "password_file": self.password_file,
            "acl_file": self.folder / "acl",
            "pid_file": self.pid_file,
            "plugin": self.mosquitto.plugin,
            "public_key_file": self.public_key_file,
            "revocations_file": self.revocations_file,
        }
        if self.tls is not None:
            values["tls_port"] = self.tls.port
            values |= {"certificate": self.tls.certificate, "certificate_key": self.tls.key}
        return values

    def command(self) -> list[str]:
        """The broker as a foreground process; send it STOP_SIGNAL to stop."""
        argv = [self.mosquitto.program("mosquitto"), "-c", str(self.config_file)]
        argv = limited_command(argv, open_files=MAX_OPEN_FILES)
        return server_command(argv, death_signal=STOP_SIGNAL)

    def environment(self) -> dict[str, str]:
        """The environment to run it in."""
        return self.mosquitto.environment()

    def accepts_connections(self) -> bool:
        """Whether it answers a client, who is refused: it listens before it heeds signals."""
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                connection.sendall(_NOBODY)
                return connection.recv(1) != b""
        except OSError:
            return False
