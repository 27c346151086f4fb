"""Programs that the machine lacks, unpacked from Debian packages into a folder, without root."""

import fcntl
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from zenthos_core.errors import ConfigurationError

_UNPACK: Final = Path(__file__).parents[2] / "infra" / "unpack-debian.sh"


def ensure_unpacked(
    folder: Path, packages: Sequence[str], *, complete: Callable[[], bool], name: str
) -> None:
    """Unpack packages, with what they need, into a folder that is not yet complete.

    Raises:
        ConfigurationError: where that fails, saying how to install them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests in several processes share one folder
        if complete():
            return
        try:
            unpack_packages(folder, packages)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{name} is missing and its packages could not be unpacked ({error}): "
                + install_hint(packages)
            ) from None


def unpack_packages(folder: Path, packages: Sequence[str]) -> None:
    """Unpack Debian packages, with what they need and the machine lacks; no root is needed.

    Beside and renamed, so that an interrupted download is never taken for whole.

    Raises:
        ConfigurationError: with the last word of the package manager.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    argv = ["sh", str(_UNPACK), "--with-dependencies", str(partial), *packages]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines() or ["no reason given"]
            raise ConfigurationError(reason[-1])
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def install_hint(packages: Sequence[str]) -> str:
    """What to do where packages are missing."""
    return f"install it (sudo apt-get install {' '.join(packages)}) and try again"
