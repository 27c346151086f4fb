"""The revocation list: which device tokens are void before they expire. The broker watches it.

1. A line is `device_id second` (epoch): the device's tokens issued before that second are refused,
   and sessions that were opened with them end within two seconds.
2. A device has one line; the second in it never falls.
3. A line older than any token can be is dropped: what it voids has expired by itself.

Writers of all processes take turns by a lock on a file beside it; readers see whole lists.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from zenthos_core.errors import ConfigurationError
from zenthos_core.shared_files import locked, replace_file
from zenthos_core.tokens import DEVICE_TOKEN_S
from zenthos_core.topics import DEVICE_ID

_LINE: Final = re.compile(rf"({DEVICE_ID.pattern}) (\d{{1,12}})")


def read_revocations(path: Path) -> dict[str, int]:
    """By device, the second before which its tokens were issued that are void.

    Raises:
        ConfigurationError: naming a line that is none.
    """
    text = path.read_text() if path.exists() else ""
    return dict(_parse(path, number, line) for number, line in enumerate(text.splitlines(), 1))


def revoke_tokens(path: Path, device_ids: Iterable[str], *, now: float) -> None:
    """Void every token issued to these devices so far.

    Raises:
        ValueError: for what is no device id.
    """
    with locked(path):
        _write(path, dict.fromkeys(device_ids, int(now) + 1), now)


def renew_tokens(path: Path, device_id: str, *, now: float) -> int:
    """Void the device's earlier tokens; returns the second at which its next one is to be issued.

    That is now, or a moment later where all that was issued up to now is void.
    """
    with locked(path):
        return _write(path, {device_id: int(now)}, now)[device_id]


def _write(path: Path, added: Mapping[str, int], now: float) -> dict[str, int]:
    if wrong := [device_id for device_id in added if not DEVICE_ID.fullmatch(device_id)]:
        raise ValueError(f"not a device id: {wrong[0]!r}")
    oldest = now - DEVICE_TOKEN_S
    entries = {name: before for name, before in read_revocations(path).items() if before >= oldest}
    for device_id, before in added.items():
        entries[device_id] = max(before, entries.get(device_id, 0))
    lines = [f"{device_id} {before}\n" for device_id, before in entries.items()]
    replace_file(path, "".join(lines).encode())
    return entries


def _parse(path: Path, number: int, line: str) -> tuple[str, int]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ConfigurationError(f"{path}, line {number}: expected `device_id second`; mend it")
    return match[1], int(match[2])
