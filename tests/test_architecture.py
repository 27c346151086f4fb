"""Who may import whom: the table of docs/architecture.md, enforced."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "zenthos_core": set(),
    "ingest": {"zenthos_core"},
    "ota_api": {"zenthos_core"},
    "zenthos_assets": {"zenthos_core", "ml"},
    "ml": {"zenthos_core"},
    "firmware": {"zenthos_core"},
    "zenthos_cli": {
        "zenthos_core",
        "ingest",
        "ota_api",
        "zenthos_assets",
        "ml",
        "firmware",
        "bench",
    },
    "bench": {
        "zenthos_core",
        "ingest",
        "ota_api",
        "zenthos_assets",
        "ml",
        "firmware",
        "zenthos_cli",
    },
}


def imported_packages(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the full name"
            yield node.lineno, str(node.module).split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_only_what_the_table_allows(package: str) -> None:
    forbidden = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imported_packages(path)
        if name in MAY_IMPORT and name != package and name not in MAY_IMPORT[package]
    ]
    assert not forbidden


def test_device_code_imports_nothing_of_ours() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / "firmware/device").rglob("*.py"))
        for line, name in imported_packages(path)
        if name in MAY_IMPORT
    ]
    assert not found


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("ingest.__main__", {"dagster", "polars", "fastapi", "tensorflow", "mlflow", "pandas"}),
        ("ingest.__main__", {"aio_pika", "redis", "boto3", "botocore", "pyarrow"}),
        ("zenthos_cli.main", {"dagster", "polars", "fastapi", "tensorflow", "mlflow", "numpy"}),
        ("zenthos_cli.main", {"boto3", "botocore", "pyarrow", "httpx"}),
        ("zenthos_assets.definitions", {"tensorflow", "mlflow", "fastapi"}),
        ("ota_api.app", {"dagster", "polars", "tensorflow", "mlflow", "paho"}),
        ("ota_api.app", {"boto3", "botocore", "pyarrow"}),
    ],
)
def test_starts_without_what_it_does_not_need(module: str, forbidden: set[str]) -> None:
    program = f"import sys, {module}; print(' '.join({forbidden!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_no_module_outgrows_a_head() -> None:
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
    }
    assert {path: lines for path, lines in sizes.items() if lines > 400} == {}
