"""What is begun before a command is: the right derivation, or nothing, and never an error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blocks.base64text import to_base64
from blocks.sources.postgres import PostgresSource
from blocks.stretching import Cost
from flows.cli import early
from flows.cli.early import begin_unlocking, begin_viewing, glance, may_use_pandas
from tests.flows.cli.desk import PASSPHRASE, Desk


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, Cost]]:
    found: list[tuple[bytes, Cost]] = []
    monkeypatch.setattr(early, "begin", lambda passphrase, cost: found.append((passphrase, cost)))
    return found


@pytest.fixture
def typed(empty_desk: Desk) -> Desk:
    """A desk whose repository opens with a passphrase."""
    empty_desk.done("init", "PLAN")
    return empty_desk


def look_at(plan: Path) -> None:
    begin_unlocking(plan.parent, glance(plan))


def written(desk: Desk, text: str) -> Path:
    path = desk.plan.with_name("other.yaml")
    path.write_text(text)
    return path


def test_the_passphrase_and_the_cost_are_those_of_the_slot(typed: Desk, begun: list[tuple[bytes, Cost]]) -> None:
    look_at(typed.plan)
    [(passphrase, cost)] = begun
    config = next(typed.plan.parent.rglob("lastgood.json"))
    slots = json.loads(config.read_bytes())["encryption"]["slots"]
    assert to_base64(cost.salt) in [slot["kdf"]["salt"] for slot in slots if slot["kind"] == "passphrase"]
    assert passphrase == PASSPHRASE.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "repository: {url: ./nowhere}\nencryption: {credential: {passphrase_env: NOT_SET_AT_ALL}}",
        "repository: {url: ./nowhere}\nencryption: none",
        "repository: {url: 's3://bucket'}\nencryption: {credential: {passphrase_env: A}}",
        "repository: {url: ./nowhere}\nencryption: {credential: {passphrase_env: A, key_file: b}}",
        "repository: {url: ./nowhere}\nencryption: {credential: {key_file: ./missing}}",
    ],
)
def test_what_is_wrong_is_left_to_the_command(text: str, desk: Desk, begun: list[tuple[bytes, Cost]]) -> None:
    look_at(written(desk, text))
    look_at(Path("missing.yaml"))
    look_at(Path("~nobody-of-that-name/plan.yaml"))
    assert not begun


def test_a_key_file_needs_no_stretching(desk: Desk, begun: list[tuple[bytes, Cost]]) -> None:
    look_at(desk.plan)
    assert not begun


def test_a_damaged_repository_is_left_to_the_command(typed: Desk, begun: list[tuple[bytes, Cost]]) -> None:
    config = next(typed.plan.parent.rglob("lastgood.json"))
    whole = config.read_bytes()
    absurd = [whole.replace(b'"iterations": 3', b'"iterations": 99'), whole.replace(b": 65536", b": 524288")]
    for damaged in (b"", b"[]", b"{}", whole[:-9], *absurd, whole + b" " * 2**20):
        assert damaged != whole
        config.write_bytes(damaged)
        look_at(typed.plan)
    config.unlink()
    os.mkfifo(config)
    look_at(typed.plan)
    assert not begun


def test_what_can_be_read_only_once_is_not_read(typed: Desk, tmp_path: Path, begun: list[tuple[bytes, Cost]]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # to read it would wait for ever
    assert glance(pipe) == {}
    text = typed.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", f"passphrase_file: {pipe}")
    look_at(written(typed, text))
    assert not begun


@pytest.mark.parametrize(
    ("sources", "may"),
    [
        ("{a: {type: sqlite, path: x}, b: {type: redis}}", False),
        ("{a: {type: sqlite, path: x}, b: {type: mapping, object: x.y}}", True),
        ("{a: {path: x}}", True),
        ("[a]", True),
    ],
)
def test_code_of_others_finds_pandas(desk: Desk, sources: str, may: bool) -> None:
    assert may_use_pandas(glance(written(desk, f"sources: {sources}"))) is may
    assert may_use_pandas(glance(desk.folder / "missing.yaml"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", ["host=nowhere.invalid user=me"]),
        ("hooks: {before: [['true']]}", []),
    ],
)
def test_views_are_begun_of_sources_but_not_before_hooks(
    empty_desk: Desk, monkeypatch: pytest.MonkeyPatch, more: str, expected: list[str]
) -> None:
    found: list[str] = []
    monkeypatch.setattr(PostgresSource, "begin", lambda self, incremental: found.append(self.dsn.get_secret_value()))
    books = "{type: postgres, dsn: 'host=nowhere.invalid user=me'}"
    plan = written(empty_desk, f"sources: {{worse: 7, bad: {{type: none}}, none: {{}}, books: {books}}}\n{more}")
    begin_viewing(plan.parent, glance(plan), incremental=True)
    assert found == expected
