"""`zenthos release`: build, sign and publish releases, and take them back."""

import os
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from zenthos_cli.shown import AsJson, Token, show_fields, show_json, show_table
from zenthos_core.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from zenthos_cli.api import Api

app = typer.Typer(help="Signed firmware and models.", no_args_is_help=True)

KEY_VARIABLE: Final = "ZENTHOS_SIGNING_KEY"
DAY_S: Final = 86_400
KeyFile = Annotated[
    Path | None, typer.Option("--key", help=f"Private key file; else {KEY_VARIABLE} holds it.")
]
Release = Annotated[str, typer.Argument(help="Id of the release, as `list` shows it.")]


@app.command()
def build(
    folder: Annotated[Path, typer.Argument(help="With the modules of the device.")],
    out: Annotated[Path, typer.Option(help="Where to write the bundle.")],
) -> None:
    """Build a bundle: compiled modules in a zip, the same bytes from the same sources."""
    import hashlib

    from firmware.pack.bundle import build_bundle

    bundle = build_bundle(folder)
    _write(out, bundle)
    typer.echo(f"{hashlib.sha256(bundle).hexdigest()}  {out} ({len(bundle)} bytes)")


@app.command()
def sign(
    binary: Annotated[Path, typer.Argument(help="A bundle, an ESP image or a model.")],
    *,
    kind: Annotated[str, typer.Option(help="firmware-bundle or esp-image.")] = "firmware-bundle",
    name: Annotated[str, typer.Option(help="What the firmware is called.")],
    version: Annotated[str, typer.Option(help="Such as v1.2.3.")],
    device_models: Annotated[list[str], typer.Option("--device-model", help="May be repeated.")],
    chip: Annotated[str, typer.Option(help="Such as esp32s3.")],
    counter: Annotated[
        int | None, typer.Option(help="The release counter; the server is asked, where not said.")
    ] = None,
    min_firmware: Annotated[str | None, typer.Option(help="Firmware that must be there.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Until the manifest expires.")] = 365,
    key: KeyFile = None,
    token: Token = None,
) -> None:
    """Sign a binary: writes BINARY's name with .manifest.json and .sig beside it."""
    import hashlib

    from zenthos_core.manifest import Manifest, Requires, sign_manifest
    from zenthos_core.signing import key_id, public_half

    private, content, now = _private_key(key), _read(binary), int(time.time())
    _check_contents(kind, binary, chip, version)
    manifest = Manifest(
        spec_version=1,
        kind=kind,
        name=name,
        version=version,
        device_models=device_models,
        chip=chip,
        release_counter=counter or _next_counter(token, device_models, kind),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        created=now,
        expires=now + days * DAY_S,
        key_id=key_id(public_half(private)),
        requires=Requires(min_firmware=min_firmware),
    )
    signed = sign_manifest(manifest, private)
    _write(_beside(binary, ".manifest.json"), signed.manifest)
    _write(_beside(binary, ".sig"), b64encode(signed.signature) + b"\n")
    typer.echo(f"signed {name} {version}, release counter {manifest.release_counter}")


@app.command()
def publish(
    binary: Annotated[Path, typer.Argument(help="As it was signed; manifest and .sig beside it.")],
    *,
    notes: Annotated[str, typer.Option(help="Release notes.")] = "",
    required: Annotated[bool, typer.Option("--required", help="Devices must take it.")] = False,
    percentage: Annotated[
        int, typer.Option(min=0, max=100, help="Devices that get it at once; 0: by a rollout.")
    ] = 0,
    token: Token = None,
) -> None:
    """Publish a signed release."""
    import msgspec

    from zenthos_cli.api import open_api
    from zenthos_core.manifest import Manifest

    document = _read(_beside(binary, ".manifest.json"))
    try:
        kind = msgspec.json.decode(document, type=Manifest).kind
    except msgspec.DecodeError as error:
        raise InvalidInputError(f"{_beside(binary, '.manifest.json')}: {error}") from None
    fields = {
        "release_notes": notes,
        "required": str(required).lower(),
        "rollout_percentage": str(percentage),
    }
    path = "/models/publish" if kind == "model" else "/firmware/publish"
    with _shown_reading(binary) as file:
        files = {
            "manifest": ("manifest.json", document),
            "signature": ("sig", _read(_beside(binary, ".sig"))),
            "binary": (binary.name, file),
        }
        answer = open_api(token).send_form(path, fields, files)
    typer.echo(f"published {answer['id']}: {answer['url']}")


@app.command("list")
def show_all(
    *,
    device_model: Annotated[str | None, typer.Option(help="For this device model.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of this kind.")] = None,
    name: Annotated[str | None, typer.Option(help="Of this name.")] = None,
    version: Annotated[str | None, typer.Option(help="Of this version.")] = None,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="Those alone.")] = False,
    as_json: AsJson = False,
    token: Token = None,
) -> None:
    """Show releases, the newest first."""
    from zenthos_cli.api import open_api

    filters = {"device_model": device_model, "kind": kind, "name": name, "version": version}
    found = list(open_api(token).items("/releases", **filters, withdrawn=withdrawn))
    if as_json:
        show_json(found)
        return
    columns = ("id", "name", "version", "kind", "device_models", "release_counter", "uploaded_at")
    rows = [[*(item[column] for column in columns), _state(item)] for item in found]
    show_table([*columns, "state"], rows, nothing="no releases")


@app.command()
def show(release: Release, as_json: AsJson = False, token: Token = None) -> None:
    """Show one release, with what was signed."""
    from zenthos_cli.api import open_api

    found = open_api(token).get(f"/releases/{release}")
    if as_json:
        show_json(found)
        return
    show_fields({**found, "manifest": b64decode(found["manifest"]).decode()})


@app.command()
def withdraw(
    release: Release,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    token: Token = None,
) -> None:
    """Offer a release to nobody any more, and abort its rollouts."""
    from zenthos_cli.api import open_api

    found = open_api(token).post(f"/releases/{release}/withdraw", {"reason": reason})
    typer.echo(f"withdrew {found['name']} {found['version']}: {found['withdrawal_reason']}")


@app.command()
def reissue(
    release: Release,
    *,
    days: Annotated[int, typer.Option(min=1, max=3650, help="Until it expires.")] = 365,
    key: KeyFile = None,
    token: Token = None,
) -> None:
    """Sign an older release anew under the next counter and publish it: the way back to it."""
    import msgspec

    from zenthos_cli.api import open_api
    from zenthos_core.manifest import Manifest, sign_manifest
    from zenthos_core.signing import key_id, public_half

    api, private, now = open_api(token), _private_key(key), int(time.time())
    found = api.get(f"/releases/{release}")
    old = msgspec.json.decode(b64decode(found["manifest"]), type=Manifest)
    new = msgspec.structs.replace(
        old,
        release_counter=_newest(api, old.device_models, old.kind) + 1,
        created=now,
        expires=now + days * DAY_S,
        key_id=key_id(public_half(private)),
    )
    signed = sign_manifest(new, private)
    body = {
        "manifest": b64encode(signed.manifest).decode(),
        "signature": b64encode(signed.signature).decode(),
        "reissue": True,
        "rollout_percentage": 0,
    }
    path = "/models/publish" if old.kind == "model" else "/firmware/publish"
    answer = api.post(path, body)
    typer.echo(f"reissued {new.name} {new.version} as {answer['id']}: `zenthos rollout rollback`")


def _state(item: dict[str, Any]) -> str:
    if item["withdrawn_at"]:
        return f"withdrawn: {item['withdrawal_reason']}"
    return "reissue" if item["reissue_of"] else ""


def _check_contents(kind: str, binary: Path, chip: str, version: str) -> None:
    """What the server would refuse is refused before it is signed."""
    from zenthos_core.bundles import check_bundle
    from zenthos_core.esp_image import check_image

    if kind == "firmware-bundle":
        with binary.open("rb") as file:
            check_bundle(file)
    elif kind == "esp-image":
        check_image(binary.read_bytes(), chip=chip, version=version)
    else:
        raise InvalidInputError(
            f"--kind {kind}: firmware-bundle or esp-image; Dagster signs models"
        )


def _next_counter(token: str | None, device_models: list[str], kind: str) -> int:
    from zenthos_cli.api import open_api

    return _newest(open_api(token), device_models, kind) + 1


def _newest(api: "Api", device_models: list[str], kind: str) -> int:
    counters = [api.get(f"/release-counters/{model}/{kind}")["newest"] for model in device_models]
    return int(max(counters))


def _private_key(path: Path | None) -> bytes:
    from zenthos_core.signing import read_key

    if path is not None:
        return read_key(path)
    text = os.environ.get(KEY_VARIABLE, "")
    try:
        key = b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigurationError(f"say --key FILE, or set {KEY_VARIABLE} to 32 bytes in base64")
    return key


def _beside(binary: Path, suffix: str) -> Path:
    return binary.with_name(binary.name.removesuffix(binary.suffix) + suffix)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}; sign it first?") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def _shown_reading(path: Path) -> Iterator[BinaryIO]:
    """The file, with a bar on a terminal that says how much of it has been sent."""
    from rich.console import Console
    from rich.progress import open as open_shown

    console = Console(stderr=True)
    try:
        with open_shown(
            path, "rb", description="upload", console=console, disable=not console.is_terminal
        ) as file:
            yield file
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror or error}") from None
