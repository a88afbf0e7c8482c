"""key list, add, remove."""

from __future__ import annotations

import pytest

from tests.flows.cli.desk import Desk


def slots(desk: Desk) -> dict[str, tuple[str, str, str]]:
    listed = desk.done("key", "list", "PLAN", "--json").json["slots"]
    return {one["label"]: (one["id"], one["role"], one["kind"]) for one in listed}


def test_a_new_repository_has_the_plans_key_and_the_recovery_key(desk: Desk) -> None:
    assert {label: kept[1:] for label, kept in slots(desk).items()} == {
        "credential of the plan": ("reader", "key-file"),
        "recovery key": ("reader", "key-file"),
    }
    assert "recovery key" in desk.done("key", "list", "PLAN").out


def test_an_added_passphrase_opens_the_repository_until_it_is_removed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECOND", "another long passphrase")
    own = desk.plan.read_text()
    second = own.replace("key_file: ./own.key", "passphrase_env: SECOND")
    added = desk.done(
        "key", "add", "PLAN", "--role", "reader", "--label", "second", "--passphrase-env", "SECOND", "--json"
    )
    (slot,) = added.json["slots"]
    assert (slot["label"], slot["role"], slot["kind"]) == ("second", "reader", "passphrase")
    desk.plan.write_text(second)
    desk.backup()
    desk.plan.write_text(own)
    desk.done("key", "remove", "PLAN", slot["id"])
    assert "second" not in slots(desk)
    desk.plan.write_text(second)
    refused = desk.run("list", "PLAN")
    assert refused.code == 7
    assert "another long passphrase" not in refused.err


def test_the_last_reader_cannot_be_removed(desk: Desk) -> None:
    known = slots(desk)
    desk.done("key", "remove", "PLAN", known["recovery key"][0])
    ran = desk.run("key", "remove", "PLAN", known["credential of the plan"][0])
    assert ran.code == 2
    assert "reader" in ran.err


def test_a_key_needs_exactly_one_credential(desk: Desk) -> None:
    words = ("key", "add", "PLAN", "--role", "writer", "--label", "x")
    assert desk.run(*words).code == 2
    assert desk.run(*words, "--key-file", "a", "--passphrase-file", "b").code == 2
    assert desk.run(*words, "--passphrase-env", "SECOND", "--generate").code == 2
    assert len(slots(desk)) == 2


def test_a_key_file_is_never_overwritten(desk: Desk) -> None:
    key = desk.folder / "own.key"
    before = key.read_bytes()
    words = ("--role", "writer", "--label", "x", "--key-file", str(key), "--generate")
    assert desk.run("key", "add", "PLAN", *words).code == 2
    assert key.read_bytes() == before


def test_a_plain_repository_has_no_keys(empty_desk: Desk) -> None:
    text = empty_desk.plan.read_text().replace("{credential: {passphrase_env: LASTGOOD_PASSPHRASE}}", "none")
    empty_desk.plan.write_text(text)
    kit = empty_desk.done("init", "PLAN", "--json").json
    assert kit["recovery_key"] is None
    assert "not encrypted" in empty_desk.run("key", "list", "PLAN").err
    empty_desk.backup()
    assert "not encrypted" in empty_desk.done("show", "PLAN", "latest").out
    empty_desk.done("check", "PLAN", "--read-data")
