"""What each block shows of itself in the UI of Prefect, and which processes have Prefect."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.core import InvalidBlockRegistration

from blocks.plan import plan, quality  # noqa: F401  which import the modules of all blocks
from blocks.prefect_compat import LastgoodBlock, needs_prefect
from blocks.sources.source import StateSource

LOGO = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"
DOCUMENTS = "https://github.com/lastgood/lastgood/blob/main/"
SOURCES = "docs/sources.md"
REGISTERED = {
    "backup-keyring": ("Backup Keyring", "docs/format.md"),
    "backup-plan": ("Backup Plan", "README.md"),
    "backup-repository": ("Backup Repository", "docs/format.md"),
    "files-source": ("Files Source", SOURCES),
    "mapping-source": ("Mapping Source", SOURCES),
    "no-encryption": ("No Encryption", "docs/format.md"),
    "postgresql-source": ("PostgreSQL Source", SOURCES),
    "quality-suite": ("Quality Suite", "README.md"),
    "redis-source": ("Redis Source", SOURCES),
    "retention-policy": ("Retention Policy", "README.md"),
    "sqlite-source": ("SQLite Source", SOURCES),
    "storage-settings": ("Storage Settings", "docs/storage.md"),
}


def below(kind: type[LastgoodBlock]) -> Iterator[type[LastgoodBlock]]:
    """Yield the blocks of ours that are derived from one."""
    for one in kind.__subclasses__():
        if one is not StateSource and one.__module__.startswith("blocks."):
            yield one
        yield from below(one)


def test_every_block_has_its_name_its_logo_and_a_document_that_is_there() -> None:
    kinds = {kind.get_block_type_slug(): kind._to_block_type() for kind in below(LastgoodBlock)}
    assert {slug: (kind.name, str(kind.documentation_url)) for slug, kind in kinds.items()} == {
        slug: (name, f"{DOCUMENTS}{path}") for slug, (name, path) in REGISTERED.items()
    }
    assert {str(kind.logo_url) for kind in kinds.values()} == {LOGO}
    root = Path(__file__).parents[2]
    for path in {path for _, path in REGISTERED.values()} | {LOGO.partition("/main/")[2]}:
        assert (root / path).is_file()


def test_the_base_itself_is_never_registered() -> None:
    with pytest.raises(InvalidBlockRegistration):
        LastgoodBlock.register_type_and_schema(_sync=True)  # type: ignore[call-arg]


def printed(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_blocks_are_read_from_a_plan_without_prefect() -> None:
    script = (
        "import sys; from blocks.prefect_compat import spare_prefect; spare_prefect(); "
        "from blocks.plan.retention import RetentionPolicy; RetentionPolicy(); print('prefect' in sys.modules)"
    )
    assert printed(script) == "False\n"


@pytest.mark.parametrize("first", ["import prefect", "import blocks.plan.retention", "import flows"])
def test_a_process_that_has_prefect_already_goes_on_with_it(first: str) -> None:
    script = (
        f"{first}; from blocks.prefect_compat import spare_prefect; spare_prefect(); "
        "from flows import backup; from prefect import Flow; print(isinstance(backup, Flow))"
    )
    assert printed(script) == "True\n"


def test_threads_that_import_blocks_at_once_have_one_base_of_all() -> None:
    script = (
        "import importlib, threading; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from blocks.prefect_compat import spare_prefect; spare_prefect()\n"
        "names = ['blocks.plan.retention', 'blocks.crypto.keyring', 'blocks.storage.local']\n"
        "ready = threading.Barrier(len(names))\n"
        "with Pool(len(names)) as pool: list(pool.map(lambda n: (ready.wait(), importlib.import_module(n)), names))\n"
        "from blocks.prefect_compat import LastgoodBlock as base\n"
        "from blocks.plan.retention import RetentionPolicy as a; "
        "from blocks.storage.settings import StorageSettings as b\n"
        "print(issubclass(a, base), issubclass(b, base))"
    )
    assert printed(script) == "True True\n"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder and a home in which nothing names a Prefect server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "list plan.yaml",
        "show ./plan.yml latest --json",
        "key list plan.yaml",
        "key add plan.yaml --role writer",
        "check plan.yaml --read-data",
        "backup plan.yaml",
        "restore plan.yaml latest --no-server",
        "--debug backup plan.yaml",
    ],
)
def test_a_command_on_a_file_with_no_server_named_does_without(away: Path, words: str) -> None:
    assert not needs_prefect(words.split())


@pytest.mark.parametrize(
    "words",
    [
        "list trading",
        "backup trading --no-server",
        "key list trading",
        "plan save plan.yaml",
        "serve plan.yaml",
        "demo",
    ],
)
def test_a_name_or_a_command_of_prefect_needs_it(away: Path, words: str) -> None:
    assert needs_prefect(words.split())


@pytest.mark.parametrize(
    "words",
    ["", "--help", "--version", "key", "lst trading", "list", "list --help", "serve --help", "backup trading -h"],
)
def test_help_and_what_is_no_command_does_without(away: Path, words: str) -> None:
    assert not needs_prefect(words.split())


def test_a_word_after_two_dashes_asks_for_no_help(away: Path) -> None:
    assert needs_prefect(["list", "trading", "--", "--help"])


def test_a_server_that_may_be_configured_is_looked_for(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = ["backup", "plan.yaml"]
    for file, text in ((".env", ""), ("prefect.toml", ""), (".prefect/profiles.toml", "")):
        (away / file).parent.mkdir(exist_ok=True)
        (away / file).write_text(text)
        assert needs_prefect(backup)
        assert not needs_prefect([*backup, "--no-server"])
        assert not needs_prefect(["list", "plan.yaml"])
        (away / file).unlink()
    (away / "pyproject.toml").write_text("[tool.other]")
    assert not needs_prefect(backup)
    (away / "pyproject.toml").write_text("[tool.prefect.api]\nurl = 'http://127.0.0.1:4200/api'")
    assert needs_prefect(backup)
    (away / "pyproject.toml").unlink()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert needs_prefect(backup)
