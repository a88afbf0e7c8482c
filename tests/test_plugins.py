"""Packages that add sources, tiers and collectors: the example, installed and used; and those that cannot be used."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from prefect.utilities.dispatch import lookup_type

from blocks.errors import ConfigurationError
from blocks.host import plugins
from blocks.host.plugins import Group, PluginUnusable, plugin
from blocks.plan.plan import parse_plan, read_plan
from blocks.records import BackupType
from blocks.sources.kinds import added_sources
from blocks.sources.source import StateSource
from blocks.sources.sqlite import SQLiteSource
from blocks.storage.kinds import scheme_of
from blocks.telemetry.collector import MetricsCollector
from flows.backup import make_backup

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "lastgood-example"
DOCUMENT = (ROOT / "docs" / "plugins.md").read_text()

COMMANDS = """
import json, sys
from lastgood import main
for words in json.loads(sys.argv[1]):
    code = main(words)
    print("exit code", code, flush=True)
    if code:
        sys.exit(code)
"""
PLAN = """
name: orders
sources:
  lines: {type: jsonlines, path: orders.jsonl, exclude: ["draft:*"], part_size_bytes: 200}
  conf: {type: files, url: conf}
repository: {url: "shelf://archive/orders"}
encryption: none
metrics: {backend: csv, address: metrics.csv, prefix: shop}
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the example is installed in, without a network."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    words += ["--no-build-isolation", "--no-deps", "--target", str(folder / "site"), str(folder / "source")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def lastgood(folder: Path, installed: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands, one after another, in a process that has the example."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": f"{installed}:{ROOT}"}
    environment["SHELF_ARCHIVE"] = str(folder / "disk")
    words = [sys.executable, "-P", "-c", COMMANDS, json.dumps(commands)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_example_backs_up_verifies_and_restores_through_the_command(tmp_path: Path, installed: Path) -> None:
    live, plan = tmp_path / "orders.jsonl", tmp_path / "plan.yaml"
    lines = [json.dumps({"key": f"order:{n:03d}", "price": n / 4}) for n in range(60)]
    (tmp_path / "conf").mkdir()
    (tmp_path / "disk").mkdir()
    live.write_text("\n".join([*lines, '{"key": "draft:1"}', ""]))
    plan.write_text(PLAN)
    backup = ["backup", str(plan), "--no-server", "--json"]
    first = lastgood(tmp_path, installed, ["init", str(plan)], [*backup, "--type", "full"])
    assert first.returncode == 0, first.stderr
    assert '"rows": 61' in first.stdout  # with the root of the other source
    changed = [*lines[:59], json.dumps({"key": "order:059", "price": -1}), '{"key": "draft:2"}']
    live.write_text("\n".join([*changed, ""]))
    again = lastgood(
        tmp_path,
        installed,
        [*backup, "--type", "incremental"],
        ["verify", str(plan), "--deep", "--no-server"],
        ["plan", "check", str(plan)],
    )
    assert again.returncode == 0, again.stderr
    assert '"upserts": 1' in again.stdout
    assert re.search(r"status +verified", again.stdout)
    assert re.search(r"metrics: csv at metrics.csv", again.stdout)
    live.write_text('{"key": "order:000", "price": "wrong"}\n{"key": "draft:3"}\n')
    restored = lastgood(
        tmp_path,
        installed,
        ["restore", str(plan), "--mode", "exact", "--yes", "--no-server"],
        ["list", str(plan), "--json"],
    )
    assert restored.returncode == 0, restored.stderr
    assert live.read_text().splitlines() == sorted([*changed[:60], '{"key": "draft:3"}'])
    assert (tmp_path / "disk" / "orders" / "lastgood.json").is_file()
    names = [line.split(",")[1] for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert names.count("shop.backup.operations.created_success") == 2


def test_the_source_is_found_by_its_plugin_alone(tmp_path: Path, installed: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    (tmp_path / "nothing").mkdir()
    done = lastgood(tmp_path, tmp_path / "nothing", ["list", str(plan)])
    assert done.returncode == 2
    for said in (
        "it is one of files, mapping, postgres, redis, sqlite; if a package adds it, that is to be installed here",
        "repository.url: backups cannot be kept at shelf://…",
        "metrics.backend: write one of prometheus, statsd, datadog, otlp",
    ):
        assert said in done.stderr


def test_the_example_imports_nothing_but_what_the_document_promises() -> None:
    promised = {
        (module, name)
        for module, cell in re.findall(r"^\| `([a-z_.]+)` \| (.*?) \|", DOCUMENT, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert len(promised) > 30
    for module, name in promised:
        assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
    used = {
        (node.module or "", alias.name)
        for file in (EXAMPLE / "lastgood_example").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {
        one for one in used if one[0].partition(".")[0] in ("blocks", "flows", "lastgood", "deployments")
    } <= promised


# -- packages that cannot be used


class Site:
    """A folder on Python's path, to which packages are added that only say that they are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: str, group: Group, name: str, code: str, what: str = "Thing") -> None:
        module = package.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        said = self.folder / f"{module}-1.0.dist-info"
        said.mkdir()
        (said / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (said / "entry_points.txt").write_text(f"[{group.value}]\n{name} = {module}:{what}\n")
        importlib.invalidate_caches()
        plugins.forget()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    plugins.forget()
    yield Site(folder)
    plugins.forget()
    for name in [
        name for name, module in list(sys.modules.items()) if str(folder) in str(getattr(module, "__file__", ""))
    ]:
        del sys.modules[name]


GOOD = """
import sys
sys.path.append({example!r})
from typing import Literal
from lastgood_example.source import JSONLinesSource

class Thing(JSONLinesSource):
    _block_type_name = "Thing {kind}"
    _block_type_slug = "thing-{kind}"
    type: Literal[{kind!r}] = {kind!r}
"""
_numbers = count(1)


def another() -> str:
    """A type that no test had before: Prefect knows each block for as long as the process lives."""
    return f"even{next(_numbers)}"


BROKEN = {
    "import": ("import not_there_anywhere", "cannot be imported: ModuleNotFoundError: No module named"),
    "exit": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "missing": ("x = 1", "cannot be imported: AttributeError: module 'odd_one' has no attribute 'Thing'"),
    "no class": ("Thing = 7", "cannot be used: it is no class that derives from"),
    "another class": ("class Thing: pass", "cannot be used: it is no class that derives from"),
    "abstract": (
        "from blocks.{module} import {base}\nclass Thing({base}): pass",
        "cannot be used: it lacks .*(target|put)",
    ),
}
SOURCES, TIERS, COLLECTORS = Group.SOURCES, Group.TIERS, Group.COLLECTORS


def raw(kind: str, url: str = "x") -> dict[str, object]:
    source = {"type": kind, "path": "a"}
    return {"name": "p", "sources": {"one": source}, "repository": {"url": url}, "encryption": "none"}


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_package_that_cannot_be_used_is_named_and_stops_no_other(
    site: Site, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    code, told = BROKEN[wrong]
    site.add("odd-one", SOURCES, "odd", code.format(module="sources.source", base="StateSource"))
    even = another()
    site.add(f"one-{even}", SOURCES, even, GOOD.format(example=str(EXAMPLE), kind=even))
    with pytest.raises(
        ConfigurationError, match=rf"sources.one: the plugin 'odd' of lastgood.sources, from odd-one 1.0, {told}"
    ):
        parse_plan(raw("odd"), "p")
    assert parse_plan(raw(even), "p").sources["one"].type == even
    assert parse_plan(raw("sqlite"), "p").sources["one"].type == "sqlite"
    with caplog.at_level(logging.WARNING):
        assert set(added_sources()) == {even}
    assert [one for one in caplog.messages if "odd-one 1.0" in one and "it is left out" in one]


@pytest.mark.parametrize("wrong", BROKEN)
def test_so_is_one_with_a_tier(site: Site, wrong: str) -> None:
    code, told = BROKEN[wrong]
    site.add("odd-one", TIERS, "odd", code.format(module="storage.base", base="StorageTier"))
    with pytest.raises(ConfigurationError, match=rf"repository: the plugin 'odd' of lastgood.tiers, .* {told}"):
        parse_plan(raw("sqlite", "odd://x"), "p")
    assert scheme_of("s3://x") == "s3"
    assert parse_plan(raw("sqlite"), "p").repository.url == "x"


def test_so_is_one_with_a_collector(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.add("odd-one", COLLECTORS, "odd", "import not_there_anywhere")
    with pytest.raises(PluginUnusable, match=r"'odd' of lastgood.collectors, from odd-one 1.0, cannot be imported"):
        MetricsCollector("odd")
    assert parse_plan(raw("sqlite") | {"metrics": {"backend": "odd"}}, "p").metrics.backend == "odd"
    with pytest.raises(ConfigurationError, match="'other' is none of prometheus, statsd, datadog, otlp, odd"):
        MetricsCollector("other")


def test_a_tier_names_its_settings_and_variables_in_sets(site: Site) -> None:
    code = "from blocks.storage.local import LocalTier\nclass Thing(LocalTier): variables = 'ODD_TOKEN'"
    site.add("odd-one", TIERS, "odd", code)
    with pytest.raises(ConfigurationError, match="cannot be used: its `variables` is no set of names"):
        parse_plan(raw("sqlite", "odd://x"), "p")


SUBCLASS = """
from __future__ import annotations
from typing import Literal
from blocks.sources.sqlite import SQLiteSource

class Thing(SQLiteSource):
    type: Literal["odd"] = "odd"
    {}
"""


def test_a_source_whose_fields_cannot_be_understood_is_named(site: Site, tmp_path: Path) -> None:
    """Without Prefect: with it such a package cannot be imported."""
    site.add("odd-one", SOURCES, "odd", SUBCLASS.format("_block_type_slug = 'odd'; later: NotThere | None = None"))
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps(raw("odd")))
    words = [sys.executable, "-P", "-c", f"import lastgood; lastgood.list_backups({str(plan)!r})"]
    path = {"PYTHONPATH": f"{site.folder}:{ROOT}"}
    done = subprocess.run(words, env=os.environ | path, capture_output=True, text=True)
    assert "from odd-one 1.0, cannot be used: its fields cannot be understood: name 'NotThere'" in done.stderr


@pytest.mark.filterwarnings("ignore:Type 'Thing'")
def test_a_source_with_the_slug_of_ours_is_left_out_and_ours_stays(site: Site) -> None:
    site.add("odd-one", SOURCES, "odd", SUBCLASS.format(""))
    with pytest.raises(ConfigurationError, match="its `_block_type_slug` is that of SQLiteSource, and has to be its"):
        parse_plan(raw("odd"), "p")
    assert lookup_type(StateSource, SQLiteSource.get_block_type_slug()) is SQLiteSource


RAISING = """
    @contextmanager
    def view(self, since=None):
        if self.path.endswith("closed"):
            raise KeyError("odd")
        with super().view(since) as made:
            made.read = lambda *_: {}["odd"]
            yield made
"""


@pytest.mark.parametrize(("path", "said"), [("closed", "it was opened"), ("lines", "one/lines#0 was read")])
def test_what_a_source_raises_says_which_it_was(site: Site, tmp_path: Path, path: str, said: str) -> None:
    even = another()
    code = GOOD.format(example=str(EXAMPLE), kind=even) + RAISING
    site.add(f"one-{even}", SOURCES, even, f"from contextlib import contextmanager\n{code}")
    (tmp_path / "lines").write_text('{"key": "a"}\n')
    source = {"type": even, "path": str(tmp_path / path)}
    plan = parse_plan(raw(even, str(tmp_path / "repository")) | {"sources": {"one": source}}, "p")
    plan.repository.initialize(plan.encryption)
    with pytest.raises(KeyError, match="odd") as caught:
        make_backup(plan, BackupType.FULL)
    assert caught.value.__notes__ == [f"source one raised it when {said}"]


def test_a_collector_that_would_end_its_thread_is_told_of(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.add("odd-one", COLLECTORS, "odd", "def Thing(address, tags): raise SystemExit(4)")
    collector = MetricsCollector("odd")
    collector.record_counter("a")
    collector.flush(60)
    assert "odd was not told metrics: 4" in caplog.messages


def test_a_source_is_of_the_type_that_it_is_found_by(site: Site) -> None:
    even = another()
    site.add(f"one-{even}", SOURCES, "odd", GOOD.format(example=str(EXAMPLE), kind=even))
    with pytest.raises(ConfigurationError, match="its field `type` is not Literal"):
        parse_plan(raw("odd"), "p")


@pytest.mark.parametrize(
    ("group", "name"), [(SOURCES, "sqlite"), (TIERS, "file"), (TIERS, "s3"), (COLLECTORS, "statsd")]
)
def test_a_name_of_ours_cannot_be_taken(site: Site, caplog: pytest.LogCaptureFixture, group: Group, name: str) -> None:
    site.add("odd-one", group, name, "raise AssertionError('it was imported')")
    plan = raw("sqlite", "s3://b/x" if name == "s3" else "file:///x") | {"metrics": {"backend": "statsd"}}
    parsed = parse_plan(plan, "p")
    assert type(parsed.sources["one"]).__module__ == "blocks.sources.sqlite.source"
    _ = parsed.repository.secret_variables, MetricsCollector("statsd")
    with caplog.at_level(logging.WARNING):
        assert added_sources() == {}
    if group is SOURCES:
        assert "odd-one 1.0 cannot take the name sqlite, which is lastgood's own" in caplog.messages


def test_two_packages_with_one_name_are_both_named(site: Site) -> None:
    for package in ("one-of-two", "two-of-two"):
        site.add(package, SOURCES, "odd", "raise AssertionError('it was imported')")
    told = "'odd' of lastgood.sources is added by more than one package: one-of-two 1.0 and two-of-two 1.0"
    with pytest.raises(ConfigurationError, match=told):
        parse_plan(raw("odd"), "p")


def test_packages_are_looked_for_only_where_a_plan_names_what_is_not_ours(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise AssertionError("packages were looked for")

    monkeypatch.setattr(importlib.metadata, "entry_points", refuse)
    parsed = parse_plan(raw("sqlite", "s3://b/x") | {"metrics": {"backend": "otlp"}}, "p")
    assert parsed.repository.secret_variables
    with pytest.raises(AssertionError, match="looked for"):
        plugin(SOURCES, "odd", lambda _, one: one)


def test_a_program_may_give_a_source_of_its_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    kind = importlib.import_module("lastgood_example.source").JSONLinesSource
    (tmp_path / "plan.yaml").write_text(
        "name: p\nsources: {one: {type: sqlite, path: x}}\nrepository: {url: y}\nencryption: none\n"
    )
    plan = read_plan(tmp_path / "plan.yaml")
    given = kind(path="lines.jsonl")
    made = type(plan)(name="p", sources={"one": given}, repository=plan.repository, encryption=plan.encryption)
    assert made.sources["one"] is given
