"""Debian's SWUpdate against a server, and images for it."""

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.servers import ServerProcess, libraries
from zenthos_cli.stack.launch import give_to_service_user, server_command

HARDWARE = "gateway:1.0"


class Vendor:
    """Signs images: Debian's SWUpdate takes no others."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "vendor.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Vendor of the gateway")])
        now = datetime.now(UTC)
        self._signer = (
            x509.CertificateBuilder(name, name, self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(self._signer.public_bytes(Encoding.PEM))

    def image(
        self, version: str, target: Path, payload: bytes, *, listed: bytes | None = None
    ) -> bytes:
        """A .swu that writes a file; `listed` is what its description says of the payload."""
        sha256 = hashlib.sha256(payload if listed is None else listed).hexdigest()
        text = (
            f'software = {{ version = "{version.removeprefix("v")}";'
            ' hardware-compatibility: [ "1.0" ]; files: ({'
            f' filename = "payload"; path = "{target}"; sha256 = "{sha256}"; }}); }}\n'
        )
        description = text.encode()
        files = {"sw-description": description, "sw-description.sig": self._sign(description)}
        return cpio({**files, "payload": payload})

    def _sign(self, description: bytes) -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(description)
        options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
        signed = builder.add_signer(self._signer, self._key, hashes.SHA256())
        return signed.sign(Encoding.DER, [*options, pkcs7.PKCS7Options.NoCapabilities])


def cpio(files: Mapping[str, bytes]) -> bytes:
    """An archive in the new ASCII format with checksums (cpio(5)), which SWUpdate reads."""
    entries = [_entry(name, data, i) for i, (name, data) in enumerate(files.items(), 1)]
    return b"".join(entries) + _entry("TRAILER!!!", b"", 0)


def _entry(name: str, data: bytes, inode: int) -> bytes:
    fields = (inode, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, sum(data))
    header = b"070702" + b"".join(b"%08X" % (field & 0xFFFFFFFF) for field in fields)
    return _padded(header + name.encode() + b"\0") + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Swupdate:
    """SWUpdate in hawkBit's mode, not as root, on a machine without a bootloader."""

    PROGRAM = "usr/bin/swupdate"
    PACKAGES = ("swupdate",)

    def __init__(self, root: Path) -> None:
        # Sockets are in this folder, and their names may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="zenthos-swupdate-"))
        self.vendor = Vendor(self.home)
        self.target = self.home / "installed"
        self._root = root
        give_to_service_user(self.home)

    @property
    def log(self) -> str:
        """What SWUpdate has written so far."""
        return (self.home / "swupdate.log").read_text()

    def image(self, version: str, payload: bytes, *, listed: bytes | None = None) -> bytes:
        """A .swu for this machine."""
        return self.vendor.image(version, self.target, payload, listed=listed)

    @contextmanager
    def running(self, configuration: str, options: str) -> Iterator[None]:
        """SWUpdate, with these options of its suricatta, as after a start of the machine."""
        file = self.home / "swupdate.cfg"
        file.write_text(configuration)
        argv = [str(self._root / self.PROGRAM), "-l", "5", "-H", HARDWARE, "-f", str(file)]
        argv += ["-u", options]
        control = self.home / "sockinstctrl"
        control.unlink(missing_ok=True)
        process = ServerProcess(
            server_command(argv, death_signal=signal.SIGTERM),
            self.home / "swupdate.log",
            ready=control.exists,
            stop_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, "TMPDIR": str(self.home), **libraries(self._root)},
        )
        process.start()
        try:
            yield
        finally:
            process.stop()

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.home)
