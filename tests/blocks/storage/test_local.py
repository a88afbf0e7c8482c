from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    CorruptionDetected,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryUnavailable,
)
from blocks.storage.base import StorageTier
from blocks.storage.local import LocalTier


@pytest.fixture
def tier(tmp_path: Path) -> StorageTier:
    made = LocalTier(str(tmp_path / "tier"))
    made.prepare()
    return made


def test_an_object_is_written_although_others_remove_its_folder_because_it_is_empty(tier, monkeypatch):
    times = iter(range(3))

    def hook(operation: str, name: str, moment: str) -> None:
        if (operation, moment) == ("write", "before") and next(times, None) is not None:
            (tier.root / "probes").rmdir()

    monkeypatch.setattr(StorageTier, "durable", staticmethod(hook))
    tier.put("probes/one", b"x")
    assert tier.get("probes/one") == b"x"


@pytest.mark.parametrize(("exclusive", "operation"), [(True, "link"), (False, "replace")])
def test_an_object_is_written_although_others_took_its_temporary_file_for_garbage(
    tier, monkeypatch, exclusive, operation
):
    times = iter(range(3))

    def hook(what: str, name: str, moment: str) -> None:
        if (what, moment) == (operation, "before") and next(times, None) is not None:
            (left,) = (tier.root / "locks").glob(".*.tmp")
            left.unlink()

    monkeypatch.setattr(StorageTier, "durable", staticmethod(hook))
    tier.put("locks/1", b"x", exclusive=exclusive)
    assert tier.get("locks/1") == b"x"
    assert os.listdir(tier.root / "locks") == ["1"]


def test_a_place_that_vanishes_while_an_object_is_written_is_said(tier, monkeypatch):
    def hook(operation: str, name: str, moment: str) -> None:
        if (operation, moment) == ("write", "before"):
            (tier.root / "probes").rmdir()
            tier.root.rmdir()

    monkeypatch.setattr(StorageTier, "durable", staticmethod(hook))
    with pytest.raises(RepositoryUnavailable, match="is not there"):
        tier.put("probes/one", b"x")


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    seen: list[tuple[str, str, str]] = []
    monkeypatch.setattr(StorageTier, "durable", staticmethod(lambda *what: seen.append(what)))
    return seen


def in_child(work) -> int:
    """Run in a forked process; return its exit status as os.waitpid gives it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1]


def test_what_is_put_is_got_back_whole_and_by_range(tier):
    tier.put("a/b/c", b"0123456789")
    assert tier.get("a/b/c") == b"0123456789"
    assert tier.get("a/b/c", 3, 4) == b"3456"
    assert tier.get("a/b/c", 8, 100) == b"89"
    assert tier.size("a/b/c") == 10
    assert tier.exists("a/b/c")
    assert not tier.exists("a/b/d")


def test_any_buffer_can_be_put(tier):
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        tier.put("object", data)
        tier.put("object", data, exclusive=True)
    assert tier.get("object") == b"abc"


def test_a_listing_has_names_sizes_and_times_of_all_objects_below_a_folder(tier):
    for name, size in (("x/2", 2), ("x/1", 1), ("x/y/3", 3), ("z", 4)):
        tier.put(name, bytes(size))
    assert [(s.name, s.size_bytes) for s in tier.list("x/")] == [("x/1", 1), ("x/2", 2), ("x/y/3", 3)]
    assert len(tier.list()) == 4
    assert all(abs(s.modified_at - datetime.now(UTC)) < timedelta(minutes=1) for s in tier.list())
    assert tier.list("nothing/here/") == []
    assert tier.folders("x/") == ["y"]
    assert tier.folders("nothing/") == []


def test_put_replaces_and_exclusive_put_does_not(tier):
    tier.put("object", b"first")
    tier.put("object", b"second")
    with pytest.raises(AlreadyExists, match="object"):
        tier.put("object", b"third", exclusive=True)
    assert tier.get("object") == b"second"
    assert tier.leftovers() == []


def test_an_exclusive_put_that_is_retried_after_a_lost_reply_succeeds(tier):
    tier.put("object", b"mine", exclusive=True)
    tier.put("object", b"mine", exclusive=True)


def test_of_many_exclusive_writers_exactly_one_wins(tier):
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        barrier.wait()
        try:
            tier.put("contested", b"%d" % number, exclusive=True)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert tier.get("contested") == b"%d" % won.index(True)
    assert tier.leftovers() == []


def test_files_and_folders_are_for_their_owner_only_whatever_the_umask(tmp_path):
    previous = os.umask(0)
    try:
        tier = LocalTier(str(tmp_path / "new" / "tier"))
        tier.prepare()
        tier.put("a/b/one", b"1")
        tier.put("a/b/two", b"2", exclusive=True)
    finally:
        os.umask(previous)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tier.root.rglob("*") if p.is_file()}
    folders = {stat.S_IMODE(p.stat().st_mode) for p in (tier.root.parent, tier.root, *tier.root.glob("a/**/"))}
    assert (modes, folders) == ({0o600}, {0o700})


def test_every_durable_operation_is_reported_before_and_after_in_order(tier, operations):
    tier.put("a/b", b"1")
    tier.put("a/b", b"2")
    tier.put("a/c", b"3", exclusive=True)
    tier.remove(["a/b", "a/c"])
    expected = [
        ("mkdir", "a"),
        ("write", "a/b"),
        ("replace", "a/b"),
        ("write", "a/b"),
        ("replace", "a/b"),
        ("write", "a/c"),
        ("link", "a/c"),
        ("delete", "a/c"),
        ("delete", "a/b"),
        ("delete", "a/c"),
    ]
    assert operations == [(*what, when) for what in expected for when in ("before", "after")]


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_process_killed_at_any_durable_operation_leaves_the_old_object_or_the_new(tier, monkeypatch, exclusive):
    kills = 0
    while True:
        name, old = f"folder-{kills}/object", None if exclusive else b"old"
        if old:
            tier.put(name, old)

        def write(name: str = name, at: int = kills) -> None:
            seen = iter(range(1000))

            def hook(operation: str, name: str, when: str) -> None:
                if next(seen) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            StorageTier.durable = staticmethod(hook)
            tier.put(name, b"new" * 1000, exclusive)

        status = in_child(write)
        found = tier.get(name) if tier.exists(name) else None
        assert found in (old, b"new" * 1000)
        if status == 0:
            break
        kills += 1
    assert found == b"new" * 1000
    # mkdir (exclusive only: the folder is new), write, link and delete, or write and replace
    assert kills == (8 if exclusive else 4)


def test_a_leftover_of_a_killed_write_is_not_listed_but_can_be_found_and_removed(tier):
    def write() -> None:
        StorageTier.durable = staticmethod(
            lambda op, name, when: os.kill(os.getpid(), signal.SIGKILL) if op == "link" else None
        )
        tier.put("a/object", b"data", exclusive=True)

    in_child(write)
    assert tier.list() == []
    (leftover,) = tier.leftovers("a/")
    tier.remove([leftover.name])
    assert tier.leftovers() == []


def test_a_write_that_does_not_fit_fails_clearly_and_leaves_what_was_there(tier):
    tier.put("object", b"before")

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(RepositoryUnavailable, match="cannot write object") as caught:
            tier.put("object", bytes(100_000))
        assert caught.value.hint
        os._exit(7)

    assert os.waitstatus_to_exitcode(in_child(write)) == 7
    assert tier.get("object") == b"before"
    assert tier.leftovers() == []


def test_an_operating_system_error_names_the_object_and_hints(tier):
    tier.put("file", b"")
    with pytest.raises(RepositoryUnavailable, match="file/below"):
        tier.put("file/below", b"")
    with pytest.raises(RepositoryUnavailable, match="too long") as caught:
        tier.put("n" * 300, b"")
    assert caught.value.hint
    assert caught.value.__cause__ is not None


def test_a_missing_object_is_told_from_a_missing_disk(tier):
    with pytest.raises(ObjectMissing, match="a/b"):
        tier.get("a/b")
    with pytest.raises(ObjectMissing):
        tier.size("a/b")
    tier.root.rmdir()
    for attempt in (
        lambda: tier.get("a/b"),
        lambda: tier.put("a/b", b""),
        lambda: tier.list(),
        lambda: tier.folders(),
        lambda: tier.exists("a"),
        lambda: tier.remove(["a"]),
    ):
        with pytest.raises(RepositoryUnavailable, match="is not there") as caught:
            attempt()
        assert "mounted" in caught.value.hint
    assert not tier.root.exists(), "a write must not create the folder of a missing disk"


def test_removing_is_idempotent_and_takes_empty_folders_along(tier):
    tier.put("a/one", b"")
    tier.put("a/two", b"")
    tier.remove(["a/one", "a/one", "never/was"])
    assert tier.folders() == ["a"]
    tier.remove(["a/two"])
    assert tier.folders() == []


def test_what_cannot_be_removed_is_named_and_the_rest_is_gone(tier):
    tier.put("a/stuck/inside", b"")
    tier.put("a/free", b"")
    with pytest.raises(RepositoryUnavailable, match="a/stuck"):
        tier.remove(["a/stuck", "a/free"])
    assert [s.name for s in tier.list()] == ["a/stuck/inside"]


def test_only_old_empty_folders_are_pruned(tier):
    for name in ("p/full/object", "p/empty/object"):
        tier.put(name, b"")
    (tier.root / "p/empty/object").unlink()
    tier.prune("p/", datetime.now(UTC) - timedelta(hours=1))
    assert tier.folders("p/") == ["empty", "full"]
    tier.prune("p/", datetime.now(UTC) + timedelta(hours=1))
    assert tier.folders("p/") == ["full"]


@pytest.mark.parametrize("name", ["../x", "a/../b", "/etc/passwd", "a//b", "", ".", "a/.", "a\\b", "a\0b", "ä", "a b"])
def test_a_name_that_could_lead_elsewhere_is_refused(tier, name):
    for attempt in (tier.get, tier.size, tier.exists, lambda n: tier.put(n, b""), lambda n: tier.remove([n])):
        with pytest.raises(ConfigurationError, match="not a name"):
            attempt(name)


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "gs://b", "memory://", "simplecache::file:///x", "file://host/x", "", " "]
)
def test_a_place_that_is_no_local_folder_is_refused_clearly(url):
    with pytest.raises(ConfigurationError) as caught:
        LocalTier(url)
    assert caught.value.hint


def test_file_urls_are_decoded(tmp_path):
    tier = LocalTier(f"file://{tmp_path}/with%20space")
    tier.prepare()
    tier.put("object", b"1")
    assert (tmp_path / "with space" / "object").read_bytes() == b"1"


def in_the_place_of(path: Path, what: str) -> None:
    """Put something that is no file there: an I/O error is what a file of the kernel's answers."""
    if what == "a FIFO":
        os.mkfifo(path)
    elif what == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif what == "a device":
        path.symlink_to("/dev/zero")
    elif what == "a loop of links":
        path.symlink_to(path)
    else:
        path.symlink_to("/proc/self/mem")


STRANGE = ["a FIFO", "a socket", "a device", "a loop of links", "an I/O error"]


@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_file_is_unreadable_and_never_waited_for(tier, tmp_path, monkeypatch, what):
    tier.put("a/other", b"data")
    monkeypatch.chdir(tier.root / "a")
    in_the_place_of(Path("object") if what == "a socket" else tier.root / "a" / "object", what)
    for length in (None, 10):
        with pytest.raises(ObjectUnreadable, match="object"):
            tier.get("a/object", 0, length)
    assert "a/other" in [stored.name for stored in tier.list()]
    if what != "a loop of links":
        with pytest.raises(AlreadyExists):
            tier.put("a/object", b"new", exclusive=True)
    tier.remove(["a/object"])
    tier.put("a/object", b"new", exclusive=True)


def test_a_file_that_is_larger_than_asked_for_is_refused_before_it_is_read(tier):
    tier.put("small", b"1234")
    with open(tier.root / "huge", "wb") as file:
        file.truncate(8 << 40)
    assert tier.get("small", limit=4) == b"1234"
    with pytest.raises(CorruptionDetected, match="8796093022208 bytes"):
        tier.get("huge", limit=1 << 20)
    assert tier.get("huge", 5, 3) == bytes(3)
    assert tier.get("small", 2, 1 << 60) == b"34", "no more is asked of memory than there is"


def test_an_object_is_written_over_in_the_room_that_it_has(tier):
    tier.put("object", b"long content")
    tier.overwrite("object", b"short")
    assert tier.get("object") == b"short"
    with pytest.raises(RepositoryUnavailable):
        tier.overwrite("nothing", b"")
