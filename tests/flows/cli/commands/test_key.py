"""key list, add, remove."""

from __future__ import annotations

import errno
import os
import stat
import struct

import pytest

from blocks.storage.base import StorageTier
from tests.flows.cli.desk import Desk, Ran


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
    desk.done("key", "remove", "PLAN", known["recovery key"][0], "--yes")
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


ACCESS = "system.posix_acl_access"


def access_list(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, may, who) for tag, may, who in entries)


def test_a_change_of_keys_keeps_owner_group_mode_and_access_list(desk: Desk) -> None:
    config = desk.folder / "backups" / "lastgood.json"
    others = (4321, 5432) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    os.chown(config, *others)
    nobody = 0xFFFFFFFF
    acl = access_list((1, 6, nobody), (2, 4, 1234), (4, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody))
    os.setxattr(config, ACCESS, acl)
    before = config.stat()
    words = ("--role", "reader", "--label", "x", "--key-file", "x.key", "--generate", "--json")
    (added,) = desk.done("key", "add", "PLAN", *words).json["slots"]
    assert config.stat().st_ino != before.st_ino  # another file took its name
    desk.done("key", "remove", "PLAN", added["id"])
    after = config.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert os.getxattr(config, ACCESS) == acl


@pytest.mark.parametrize("mode", [0o640, 0o664, 0o600])
def test_a_change_of_keys_keeps_the_mode(desk: Desk, mode: int) -> None:
    config = desk.folder / "backups" / "lastgood.json"
    config.chmod(mode)
    desk.done("key", "add", "PLAN", "--role", "writer", "--label", "x", "--key-file", "x.key", "--generate")
    assert stat.S_IMODE(config.stat().st_mode) == mode


def added(desk: Desk, key: str = "new.key", role: str = "reader") -> Ran:
    return desk.run("key", "add", "PLAN", "--role", role, "--label", "x", "--key-file", key, "--generate")


def test_an_addition_that_fails_leaves_no_key_file(desk: Desk) -> None:
    known = slots(desk)
    wrong = ("key", "add", "PLAN", "--role", "reader", "--label", "two\nlines", "--key-file", "new.key", "--generate")
    assert desk.run(*wrong).code == 2
    assert not (desk.folder / "new.key").exists()
    assert slots(desk) == known


def test_a_writer_that_adds_a_reader_leaves_no_key_file(desk: Desk) -> None:
    assert added(desk, "writer.key", "writer").code == 0
    desk.plan.write_text(desk.plan.read_text().replace("own.key", "writer.key"))
    assert added(desk).code == 7
    assert not (desk.folder / "new.key").exists()


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_is_killed_in_between_leaves_no_key_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def kill(operation: str, name: str, moment: str) -> None:
        if (operation, name, moment) == ("replace", "lastgood.json", when):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StorageTier, "durable", staticmethod(kill))
        with pytest.raises(Killed):
            added(desk)
    assert not (desk.folder / "new.key").exists()
    desk.done("list", "PLAN")


def test_a_repository_that_cannot_be_written_leaves_no_key_file(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(operation: str, name: str, moment: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(StorageTier, "durable", staticmethod(full))
        assert added(desk).code == 4
    assert not (desk.folder / "new.key").exists()


def test_a_key_file_that_cannot_be_written_leaves_no_slot_and_no_part_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = slots(desk)
    config = desk.folder / "backups" / "lastgood.json"
    before = config.read_bytes()

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("new.key"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        ran = added(desk)
    assert ran.code == 2
    assert "No space left" in ran.err
    assert not (desk.folder / "new.key").exists()
    assert (slots(desk), config.read_bytes()) == (known, before)


@pytest.mark.parametrize("there", ["file", "link", "folder", "nowhere"])
def test_nothing_is_changed_where_the_key_file_cannot_be_made(desk: Desk, there: str) -> None:
    path, before = desk.folder / "new.key", (desk.folder / "backups" / "lastgood.json").read_bytes()
    if there == "file":
        path.write_text("precious")
    elif there == "link":
        path.symlink_to("nothing")
    elif there == "folder":
        path.mkdir()
    assert added(desk, "absent/new.key" if there == "nowhere" else "new.key").code == 2
    assert (desk.folder / "backups" / "lastgood.json").read_bytes() == before
    assert there != "file" or path.read_text() == "precious"


def test_the_plans_own_credential_is_removed_only_by_a_word(desk: Desk) -> None:
    own = slots(desk)["credential of the plan"][0]
    refused = desk.run("key", "remove", "PLAN", own)
    assert refused.code == 10
    assert "--yes" in refused.err
    assert "credential that the plan itself names" in refused.err
    assert "credential of the plan" in slots(desk)
    kept = desk.done("key", "remove", "PLAN", own, "--yes", "--json").json["slots"]
    assert [slot["label"] for slot in kept] == ["recovery key"]
    assert desk.run("list", "PLAN").code == 7


def test_the_plans_credential_is_known_whatever_its_slot_is_called(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAME", (desk.folder / "own.key").read_text())
    desk.done("key", "add", "PLAN", "--role", "writer", "--label", "worker", "--key-file", "own.key")
    desk.plan.write_text(desk.plan.read_text().replace("key_file: ./own.key", "recovery_key_env: SAME"))
    for label in ("worker", "credential of the plan"):
        assert desk.run("key", "remove", "PLAN", slots(desk)[label][0]).code == 10


def test_the_last_writer_is_removed_only_by_a_word(desk: Desk) -> None:
    for name in ("one", "two"):
        desk.done("key", "add", "PLAN", "--role", "writer", "--label", name, "--key-file", f"{name}.key", "--generate")
    desk.done("key", "remove", "PLAN", slots(desk)["one"][0])
    last = slots(desk)["two"][0]
    refused = desk.run("key", "remove", "PLAN", last)
    assert refused.code == 10
    assert "last one of a writer" in refused.err
    desk.done("key", "remove", "PLAN", last, "--yes")
    assert "two" not in slots(desk)


def test_the_credential_in_use_is_marked(desk: Desk) -> None:
    listed = desk.done("key", "list", "PLAN", "--json").json["slots"]
    assert {slot["label"]: slot["in_use"] for slot in listed} == {"credential of the plan": True, "recovery key": False}
    lines = desk.done("key", "list", "PLAN").out.splitlines()
    assert [line.endswith("in use") for line in lines[1:]] == [slot["in_use"] for slot in listed]


def test_the_last_recovery_key_is_removed_only_by_a_word(desk: Desk) -> None:
    last = slots(desk)["recovery key"][0]
    refused = desk.run("key", "remove", "PLAN", last)
    assert refused.code == 10
    assert "last recovery key" in refused.err
    assert "recovery key" in slots(desk)
    desk.done("key", "remove", "PLAN", last, "--yes")
    assert "recovery key" not in slots(desk)
