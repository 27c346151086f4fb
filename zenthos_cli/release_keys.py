"""`zenthos keygen` and `zenthos keys`: keys that sign releases, and the list the root signs."""

import time
from base64 import b64encode
from pathlib import Path
from typing import Annotated

import typer

from zenthos_core.errors import ConfigurationError, InvalidInputError
from zenthos_core.signing import (
    ReleaseKey,
    TrustedKeys,
    generate_key,
    key_id,
    public_half,
    read_key,
    read_trusted_keys,
    write_private_key,
    write_trusted_keys,
)

app = typer.Typer(help="The list of keys that may sign releases.", no_args_is_help=True)

DAY_S = 86_400
Folder = Annotated[Path, typer.Option(help="With the keys.")]
RootKey = Annotated[Path | None, typer.Option("--root", help="Private root key; in the folder.")]


def keygen(
    name: Annotated[str, typer.Argument(help="NAME.key and NAME.pub are written.")],
    folder: Folder = Path(".zenthos/keys"),
) -> None:
    """Make a key pair; only its owner can read the private half."""
    private = generate_key()
    try:
        write_private_key(folder / f"{name}.key", private)
    except FileExistsError:
        raise ConfigurationError(f"{folder / name}.key is there already: name another") from None
    public = public_half(private)
    (folder / f"{name}.pub").write_bytes(b64encode(public) + b"\n")
    typer.echo(f"{folder / name}.key  key id {key_id(public)}")


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="NAME.pub of the folder, from `zenthos keygen`.")],
    kinds: Annotated[list[str], typer.Option("--kind", help="It may sign; may be repeated.")],
    *,
    device_models: Annotated[
        list[str] | None, typer.Option("--device-model", help="For these alone.")
    ] = None,
    replaces: Annotated[str | None, typer.Option(help="Key id that leaves the list.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Until it expires.")] = 730,
    folder: Folder = Path(".zenthos/keys"),
    root: RootKey = None,
) -> None:
    """Have the root sign for a new key, and no longer for one that it replaces."""
    public = read_key(folder / f"{name}.pub")
    new = ReleaseKey(
        key_id=key_id(public),
        public_key=b64encode(public).decode(),
        kinds=kinds,
        device_models=device_models or ["*"],
        expires=int(time.time()) + days * DAY_S,
    )
    _sign(folder, root, without=[replaces or "", new.key_id], more=[new], must_be=replaces)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Key id, as `zenthos keygen` printed it.")],
    folder: Folder = Path(".zenthos/keys"),
    root: RootKey = None,
) -> None:
    """Take a key off the list: what it signed is offered to nobody any more."""
    _sign(folder, root, without=[key], more=[], must_be=key)


def _sign(
    folder: Path,
    root: Path | None,
    *,
    without: list[str],
    more: list[ReleaseKey],
    must_be: str | None,
) -> None:
    """The list of the next version."""
    private = read_key(root or folder / "root.key")
    listed = folder / "keys.json"
    now = read_trusted_keys(listed, public_half(private))
    if must_be is not None and must_be not in {key.key_id for key in now.keys}:
        known = ", ".join(key.key_id for key in now.keys)
        raise InvalidInputError(f"no key {must_be} in {listed}: it has {known}")
    kept = [key for key in now.keys if key.key_id not in without]
    write_trusted_keys(listed, TrustedKeys(now.version + 1, [*kept, *more]), private)
    typer.echo(f"{listed} is version {now.version + 1}: give it to every OTA server")
