"""What is begun before a command is: the right derivation, or nothing, and never an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.stretching import Argon2
from flows.cli import early
from flows.cli.early import begin_unlocking
from tests.flows.cli.desk import PASSPHRASE, Desk


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, Argon2]]:
    found: list[tuple[bytes, Argon2]] = []
    monkeypatch.setattr(early, "begin", lambda passphrase, cost: found.append((passphrase, cost)))
    return found


@pytest.fixture
def typed(empty_desk: Desk) -> Desk:
    """A desk whose repository opens with a passphrase."""
    empty_desk.done("init", "PLAN")
    return empty_desk


def written(desk: Desk, text: str) -> Path:
    path = desk.plan.with_name("other.yaml")
    path.write_text(text)
    return path


def test_the_passphrase_and_the_cost_are_those_of_the_slot(typed: Desk, begun: list[tuple[bytes, Argon2]]) -> None:
    begin_unlocking(typed.plan)
    [(passphrase, cost)] = begun
    config = next(typed.plan.parent.rglob("lastgood.json"))
    slots = json.loads(config.read_bytes())["encryption"]["slots"]
    assert cost.salt in [slot["kdf"]["salt"] for slot in slots if slot["kind"] == "passphrase"]
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
def test_what_is_wrong_is_left_to_the_command(text: str, desk: Desk, begun: list[tuple[bytes, Argon2]]) -> None:
    begin_unlocking(written(desk, text))
    begin_unlocking(Path("missing.yaml"))
    assert not begun


def test_a_key_file_needs_no_stretching(desk: Desk, begun: list[tuple[bytes, Argon2]]) -> None:
    begin_unlocking(desk.plan)
    assert not begun


def test_a_damaged_repository_is_left_to_the_command(typed: Desk, begun: list[tuple[bytes, Argon2]]) -> None:
    config = next(typed.plan.parent.rglob("lastgood.json"))
    whole = config.read_bytes()
    for damaged in (b"", b"[]", b"{}", whole[:-9], whole.replace(b'"iterations": 3', b'"iterations": 99')):
        config.write_bytes(damaged)
        begin_unlocking(typed.plan)
    assert not begun
