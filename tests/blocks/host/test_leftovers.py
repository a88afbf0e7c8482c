"""Whether a process has ended, by its names: of this machine only, and never of one that may still run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, TemporaryFolderFull, TemporaryFolderUnusable
from blocks.host import leftovers
from blocks.host.leftovers import (
    has_ended,
    kept_temporarily,
    left_behind,
    make_scratch_folder,
    owned_name,
    process_name,
    remove_abandoned_scratch,
    runs,
    scratch_folder,
    temporary_folder,
)

PREFIX = ".lastgood-restore-"
SAY = (
    "from blocks.host.leftovers import owned_name, process_name; import sys;"
    f"print(owned_name({PREFIX!r}, 'a-plan.x')); print(process_name(), flush=True); sys.stdin.read()"
)


def other() -> tuple[subprocess.Popen[str], str, str]:
    process = subprocess.Popen([sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip(), process.stdout.readline().strip()


def test_what_a_live_process_has_made_is_not_left_behind() -> None:
    assert not left_behind(owned_name(PREFIX, "trading"), PREFIX)
    assert not has_ended(process_name())
    process, place, name = other()
    assert not left_behind(place, PREFIX)
    assert not has_ended(name)
    process.communicate("")
    assert left_behind(place, PREFIX)
    assert has_ended(name)
    assert leftovers.owner(place, PREFIX) == f"of plan a-plan.x, process {process.pid}"


def test_a_killed_process_has_ended_before_anybody_asks_how() -> None:
    process, place, name = other()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert left_behind(place, PREFIX)
    assert has_ended(name)
    process.communicate()


def test_names_of_others_tell_nothing() -> None:
    process, place, name = other()
    process.communicate("")
    head, machine, *rest = place.rsplit("-", 4)
    elsewhere = "-".join([head, "0" * 8 if machine != "0" * 8 else "1" * 8, *rest])
    assert not left_behind(elsewhere, PREFIX)
    for name_of_another in ("host:1", "an unreadable lease", name.replace("[", "[0"), ""):
        assert not has_ended(name_of_another)
    assert not left_behind("lastgood-somebody-else", "lastgood-")


def test_of_another_machine_with_the_same_name_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    process, place, name = other()
    process.communicate("")
    (tmp_path / "id").write_text("0123456789abcdef\n")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leftovers, "_BOOT", tmp_path / "id")
        assert not has_ended(name)
    monkeypatch.setattr(leftovers, "_MACHINE", tmp_path / "id")
    assert not left_behind(place, PREFIX)
    assert not has_ended(name)


def test_where_the_start_of_a_process_cannot_be_told_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leftovers, "_BOOT", tmp_path / "missing")
    process, place, name = other()
    mine = owned_name(PREFIX)
    process.communicate("")
    for one in (place, mine):
        assert not left_behind(one, PREFIX)
    assert not has_ended(name)


@pytest.mark.parametrize("own_proc", [True, False])
def test_of_processes_of_another_container_nothing_is_known(own_proc: bool) -> None:
    """Without a /proc of its own a container reads there of strangers that have the numbers of its processes."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    proc = ["--mount-proc"] if own_proc else []
    say = "from blocks.host.leftovers import has_ended, process_name; n = process_name(); print(n); print(has_ended(n))"
    # a shell is the first process there, so that python has another number
    words = [sys.executable, "-c", say]
    ran = subprocess.run(
        ["unshare", *user, "--pid", "--fork", *proc, "sh", "-c", '"$@"; true', "sh", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    name, ended = ran.stdout.splitlines()
    assert ended == "False"
    assert not has_ended(name)
    assert runs(name) is None
    assert name.endswith("-0]") is not own_proc, "the start that it names is its own, or none"


def test_temporary_data_goes_where_tmpdir_says_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_folder() == tmp_path
    with scratch_folder("verify", "trading") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="missing"):
        temporary_folder()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, TemporaryFolderFull),
        (errno.EDQUOT, TemporaryFolderFull),
        (errno.EIO, TemporaryFolderUnusable),
        (errno.EROFS, TemporaryFolderUnusable),
    ],
)
def test_a_full_temporary_folder_is_an_error_of_its_own(number: int, kind: type[TemporaryFolderUnusable]) -> None:
    with (
        pytest.raises(TemporaryFolderUnusable, match="what was read cannot be kept in /scratch") as caught,
        kept_temporarily("what was read", "/scratch"),
    ):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert caught.value.exit_code == 3
    assert "TMPDIR" in caught.value.hint


def test_a_scratch_folder_that_finds_no_room_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", str(tmp_path)], check=True)
    try:
        with pytest.raises(TemporaryFolderFull, match="No space left"):
            make_scratch_folder("redis")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_killed_processes_left_goes_and_what_lives_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mine, strangers = make_scratch_folder("verify"), tmp_path / "lastgood-notes"
    strangers.mkdir()
    script = (
        "from blocks.host.leftovers import make_scratch_folder as make; import os;"
        "(make('verify', 'p') / 'secret').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    remove_abandoned_scratch()
    assert set(tmp_path.iterdir()) == {mine, strangers}
