"""Another `flows` or `blocks` than lastgood's own: named in one sentence, by the command and by the functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.face_support import ROOT

PACKAGES = ("flows", "blocks")


def run(*words: str, cwd: Path, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "HOME": str(cwd)}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)


def foreign(folder: Path, package: str) -> Path:
    """Make somebody's project with a package of that name, which must not be run."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("raise SystemExit('somebody else was run')\n")
    return folder / package


def refused(done: subprocess.CompletedProcess[str], place: Path) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: lastgood needs its own package")
    assert done.stderr.count("\n") == 1
    assert f"of {place} instead" in done.stderr
    assert "uv tool install" in done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_project_in_the_folder_of_the_command_is_named(package: str, tmp_path: Path) -> None:
    place = foreign(tmp_path, package)
    refused(run("-m", "lastgood", "list", "plan.yaml", cwd=tmp_path, path=(ROOT,)), place)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_project_on_the_path_is_named(package: str, tmp_path: Path) -> None:
    place = foreign(tmp_path / "project", package)
    command = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lastgood import main; sys.exit(main())"
    refused(run("-m", "lastgood", "--version", cwd=tmp_path, path=(place.parent, ROOT)), place)
    refused(run("-c", command, str(place.parent), "--version", cwd=tmp_path, path=(ROOT,)), place)


def test_a_module_or_a_folder_without_code_of_the_name_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()  # Python takes the package that has code
    assert run("-m", "lastgood", "--version", cwd=tmp_path, path=(ROOT,)).returncode == 0
    (tmp_path / "flows.py").write_text("raise SystemExit('somebody else was run')\n")
    refused(run("-m", "lastgood", "--version", cwd=tmp_path, path=(ROOT,)), tmp_path / "flows.py")


def test_deployments_of_somebody_else_matter_to_the_commands_that_use_ours(tmp_path: Path) -> None:
    place = foreign(tmp_path, "deployments")
    assert run("-m", "lastgood", "list", "--help", cwd=tmp_path, path=(ROOT,)).returncode == 0
    refused(run("-m", "lastgood", "serve", "plan.yaml", cwd=tmp_path, path=(ROOT,)), place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install lastgood, as a wheel that pip builds, into a folder."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("blocks", "flows", "deployments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("lastgood.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    install(source, site)
    return site


def install(source: Path, site: Path) -> None:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--upgrade", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_whole_of_it_is_installed(site: Path, tmp_path: Path) -> None:
    own = {
        str(path.relative_to(ROOT))
        for name in ("blocks", "flows", "deployments")
        for path in (ROOT / name).rglob("*.py")
    }
    assert own <= {str(path.relative_to(site)) for path in site.rglob("*.py")}
    assert (site / "deployments" / "plans" / "trading.yaml").exists()
    done = run("-P", "-m", "lastgood", "--version", cwd=tmp_path, path=(site,))
    assert done.stdout.startswith("lastgood "), done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_project_that_is_installed_over_ours_is_named(package: str, site: Path, tmp_path: Path) -> None:
    both = tmp_path / "site"
    shutil.copytree(site, both)
    project = tmp_path / "project"
    foreign(project, package)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "their-project"\nversion = "1"\n[tool.setuptools]\npackages = ["{package}"]\n'
    )
    install(project, tmp_path / "theirs")
    shutil.copytree(tmp_path / "theirs" / package, both / package, dirs_exist_ok=True)  # as pip does in one environment
    refused(run("-P", "-m", "lastgood", "list", "plan.yaml", cwd=tmp_path, path=(both,)), both / package)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.share(2)
def test_the_functions_raise_what_the_command_says(package: str, tmp_path: Path) -> None:
    place = foreign(tmp_path, package)
    script = """
import lastgood
for work in ("backup('plan.yaml')", "BackupManager('plan.yaml')", "LastgoodError"):
    try:
        eval("lastgood." + work)
    except ImportError as error:
        print(error.name, error)
"""
    done = run("-c", script, cwd=tmp_path, path=(ROOT,))
    lines = done.stdout.splitlines()
    assert len(lines) == (3 if package == "blocks" else 2), done.stderr
    assert all(line.startswith(package) and str(place) in line for line in lines)
