"""Keys that stand twice in a plan or a suite are reported with file and line; nothing that stands there is repeated."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError
from blocks.plan.plan import read_plan
from blocks.plan.quality import load_suites
from blocks.plan.strict_yaml import load_json, load_yaml

PLAN = """name: trading
sources:
  ledger: {type: sqlite, path: ./a.db}
  conf: {type: files, url: ./conf}
repository: {url: ./backups}
encryption: none
"""


@pytest.mark.parametrize(
    ("text", "key", "line", "first"),
    [
        ("a: 1\nb: 2\na: 3", "a", 3, 1),
        ("a: 1\n'a': 2", "a", 2, 1),
        ("1: a\n0x1: b", "0x1", 2, 1),
        ("yes: a\ntrue: b", "true", 2, 1),
        ("x:\n- {a: 1}\n- {b: 1,\n   b: 2}", "b", 4, 3),
        ("x:\n  y:\n    z: 1\n    w: 2\n    z: 3", "z", 5, 3),
        ("x: &one {k: 1}\ny:\n  <<: *one\n  k: 2\n  k: 3", "k", 5, 4),
    ],
)
def test_a_key_that_stands_twice_is_told_with_its_lines(text: str, key: str, line: int, first: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_yaml(text, "plan x")
    assert caught.value.message == f"plan x, line {line}: the key {key!r} stands there twice, and first in line {first}"


def test_a_merge_key_may_be_written_over() -> None:
    read = load_yaml("x: &one {a: 1, b: 2}\nz: &two {c: 3}\ny:\n  <<: [*one, *two]\n  a: 9", "plan x")
    assert read["y"] == {"a": 9, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("sources:\n  other: {type: sqlite, path: ./b.db}\n", 7),
        ("retention: {full: 90d, daily: 1, full: 1d}\n", 7),
        ("encryption: {credential: {key_file: k}}\n", 7),
    ],
)
def test_a_plan_with_a_key_twice_is_refused_by_file_and_line(tmp_path: Path, more: str, line: int) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN + more)
    with pytest.raises(ConfigurationError, match=rf"plan {path}, line {line}: the key"):
        read_plan(path)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("  conf:", "  ledger:"))
    with pytest.raises(ConfigurationError, match=r"line 4: the key 'ledger' .* line 3"):
        read_plan(path)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("q.yaml", "name: n\ncollection: a/b\nname: m\nexpectations: []", 3),
        ("q.json", '{"name": "n",\n"collection": "a/b",\n\t"name": "m", "expectations": []}', 3),
        ("q.json", '[{"name": "n", "collection": "a/b",\n"expectations": [{"type": "x",\n"type": "y"}]}]', 3),
    ],
)
def test_a_suite_with_a_key_twice_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=rf"{name}, line {line}: the key"):
        load_suites([str(tmp_path / name)])


@pytest.mark.parametrize(
    "text",
    ['p: "hunter2', "p: *hunter2", "p: !hunter2 x", "p: @hunter2", "p: {hunter2", "p: hunter2: x", "hunter2\x00"],
)
def test_what_is_not_yaml_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="plan x is not YAML") as caught:
        load_yaml(text, "plan x")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("text", ['{"p":\n"hunter2', '{"p": 1,\nhunter2'])
def test_what_is_not_json_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"x is not JSON: .* line 2") as caught:
        load_json(text, "x")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_date_that_is_none_is_no_fault_of_ours() -> None:
    with pytest.raises(ConfigurationError, match="not YAML"):
        load_yaml("a: 2026-13-45", "plan x")
