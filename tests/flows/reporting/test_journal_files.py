"""Lines of many processes are appended whole, and what took the place of old ones never counts less or more."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.reporting import journal_compaction, journal_files
from flows.reporting.journal_compaction import KEPT_SEGMENTS, compact
from flows.reporting.journal_files import append, segment, segments
from flows.reporting.journal_reader import JournalReader
from flows.reporting.journal_totals import read_totals
from tests.flows.reporting.journal_support import counts, ended, note, numbers_of, operations, started
from tests.forked import forked, killed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments end after some operations."""
    monkeypatch.setattr(journal_files, "SEGMENT_BYTES", 4000)


def read(folder: Path) -> tuple[int, int, int]:
    return numbers_of(JournalReader(folder).read())


def lines(folder: Path) -> list[str]:
    return [line for number in segments(folder) for line in segment(folder, number).read_text().splitlines()]


def test_only_its_owner_reads_what_is_in_the_home(folder: Path) -> None:
    note(folder, started(1))
    assert (folder.stat().st_mode & 0o777, segment(folder, 1).stat().st_mode & 0o777) == (0o700, 0o600)


def test_who_may_write_a_shared_folder_may_write_its_journal(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)
    note(folder, started(1))
    assert segment(folder, 1).stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    "rubbish",
    [b'{"event":"started","id":"cut o', b"\0" * 100, b"\xff\xfe{}\n", b"[]\n", b'{"event": 7}\n', b"\n\n", b"{" * 3000],
)
def test_torn_and_foreign_lines_cost_nothing_but_themselves(folder: Path, rubbish: bytes) -> None:
    note(folder, started("a"))
    with segment(folder, 1).open("ab") as file:
        file.write(rubbish)
    note(folder, ended("a"))
    note(folder, started("b"))
    assert read(folder) == (2, 1, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": -1},
        {"seconds": "long"},
        {"outcome": "splendid"},
        {"verb": "restoration"},
        {"type": "x" * 41},
        {"at": "yesterday"},
        {"made": {"type": "full"}},
        {"numbers": {"calls": [["tier", "put"]]}},
        {"numbers": {"stages": {"collect": -0.1}}},
    ],
)
def test_a_line_that_is_wrong_in_part_counts_for_nothing(folder: Path, wrong: dict[str, Any]) -> None:
    note(folder, ended("a"))
    before = counts(JournalReader(folder).read())
    note(folder, ended("b") | wrong)
    assert counts(JournalReader(folder).read()) == before


def test_a_line_that_a_full_disk_cut_off_harms_no_other(folder: Path) -> None:
    note(folder, started("a"))
    size = segment(folder, 1).stat().st_size

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        with pytest.raises(OSError, match=r"cut off|too large"):
            append(folder, ended("a"))

    forked(full)
    assert segment(folder, 1).stat().st_size == size + 20
    assert read(folder)[:2] == (1, 0)
    note(folder, ended("a"))
    assert read(folder) == (1, 1, 0)


def test_something_else_in_the_place_of_a_segment_is_not_waited_for(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(segment(folder, 1))
    with pytest.raises(OSError, match="something else"):
        append(folder, started("a"))
    assert read(folder) == (0, 0, 0)


def test_a_very_long_line_goes_without_its_numbers(folder: Path) -> None:
    many = {"numbers": {"stages": {f"stage {n}": 1.0 for n in range(5000)}}}
    line = ended("a")
    append(folder, {name: value for name, value in line.items() if name != "numbers"}, many)
    assert len(lines(folder)[0]) < 1000
    assert read(folder) == (1, 1, 0)


@pytest.mark.usefixtures("small_segments")
def test_old_segments_become_totals_that_count_the_same(folder: Path) -> None:
    told = list(operations(100))
    every = JournalReader(folder)
    for number, line in enumerate(told):
        note(folder, line)
        if number % 7 == 0:
            every.read()
    assert len(segments(folder)) <= KEPT_SEGMENTS + 2
    assert read_totals(folder).through > 5
    assert len(lines(folder)) < 60
    whole = folder.with_name("whole")
    for line in told:
        append(whole, line)
    expected = JournalReader(whole).read().of("", "r" * 32, "books")
    for reader in (every, JournalReader(folder)):
        assert reader.read().of("", "r" * 32, "books") == expected
    assert numbers_of(JournalReader(folder).read()) == (100, 90, 10)


@pytest.mark.usefixtures("small_segments")
def test_numbers_of_segments_are_never_given_again(folder: Path) -> None:
    for line in operations(60):
        note(folder, line)
    last = segments(folder)[-1]
    for number in segments(folder):
        if number != last:
            segment(folder, number).unlink()
    segment(folder, last).unlink()
    before = read(folder)
    note(folder, started("a"))
    assert segments(folder)[0] > read_totals(folder).through
    assert read(folder) == (before[0] + 1, *before[1:])


@pytest.mark.usefixtures("small_segments")
def test_a_stopped_process_that_holds_the_last_segment_holds_up_nobody(folder: Path) -> None:
    note(folder, started("a"))
    with segment(folder, 1).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        note(folder, started("b"))
        assert segments(folder) == [1, 2]
        for line in operations(60):
            note(folder, line)
        assert segments(folder)[0] == 1, "what it may still write would be lost"
        held.write((json.dumps(ended("a")) + "\n").encode())
    for line in operations(40):
        note(folder, line)
    assert segments(folder)[0] > 1
    assert read(folder) == (102, 91, 10)


@pytest.mark.usefixtures("small_segments")
def test_a_file_server_locks_only_what_may_be_written_and_is_compacted_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS makes a lock of a range of bytes out of flock, which wants a file that is open for writing."""
    real = fcntl.flock

    def flock(fd: Any, how: int) -> None:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "not open for writing")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    for line in operations(60):
        note(folder, line)
    assert segments(folder)[0] > 1
    assert read(folder) == (60, 54, 6)


def test_a_segment_that_cannot_be_read_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note(folder, started("a"))
    real, reader = os.open, JournalReader(folder)

    def denied(path: Any, *args: Any, **more: Any) -> int:
        if Path(path) == segment(folder, 1):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", denied)
    for _ in range(3):
        assert numbers_of(reader.read()) == (0, 0, 0)
    assert len([one for one in caplog.records if "cannot be read" in one.getMessage()]) == 1
    monkeypatch.setattr(os, "open", real)
    assert numbers_of(reader.read()) == (1, 0, 0)


class Steps:
    """Kills the process at one of the calls by which a compaction changes the folder."""

    NAMES = ("replace", "unlink", "fsync")

    def __init__(self, at: int, after: bool) -> None:
        self._left, self._after = at, after
        for name in self.NAMES:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = call(*args, **more)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return counted


@pytest.mark.usefixtures("small_segments")
def test_a_compaction_that_is_killed_anywhere_changes_no_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_compaction, "KEPT_SEGMENTS", 100)
    for line in operations(60):
        note(folder, line)
    monkeypatch.setattr(journal_compaction, "KEPT_SEGMENTS", 1)
    through = JournalReader(folder)
    before, whole = read(folder), through.read().of("", "r" * 32, "books")
    kills = 0
    for at in range(1, 100):
        for after in (False, True):

            def compacted(at: int = at, after: bool = after) -> None:
                Steps(at, after)
                compact(folder)

            died = killed(compacted)
            kills += died
            assert read(folder) == before
            assert through.read().of("", "r" * 32, "books") == whole
            for line in operations(8):  # so that there is something to do again
                append(folder, line)
            before, whole = read(folder), through.read().of("", "r" * 32, "books")
        if not died:
            break
    assert kills > 6
    compact(folder)
    assert read(folder) == before
    assert {path.name.split(".")[-1] for path in folder.iterdir()} == {"jsonl", "lock", "json"}


def writer(folder: Path, said: Path) -> int:
    """Begin a process that notes operations, and says after each line that it did; returns its id."""
    if child := os.fork():
        return child
    try:
        told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for line in operations(250):
            note(folder, line)
            os.write(told, str(line["event"])[:1].encode())
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.usefixtures("small_segments")
def test_what_many_processes_note_while_one_is_killed_never_counts_less(folder: Path, tmp_path: Path) -> None:
    """Compactions run all the time, in whichever process begins a segment; readers look on."""
    said = [tmp_path / f"said{number}" for number in range(4)]
    running = {writer(folder, path): number for number, path in enumerate(said)}
    first, ends = min(running), dict[int, int]()
    old, before, rounds = JournalReader(folder), dict[tuple[str, ...], int](), 0
    while running:
        for reader in (old, JournalReader(folder)):
            now = counts(reader.read())
            assert not {name: (count, now.get(name)) for name, count in before.items() if now.get(name, 0) < count}
            before = now
        rounds += 1
        if first in running and rounds > 3 and said[0].exists() and said[0].stat().st_size > 50:
            os.kill(first, signal.SIGKILL)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            ends[running.pop(ended[0])] = ended[1]
    assert rounds > 3
    assert [ends[number] for number in (1, 2, 3)] == [0, 0, 0]
    told = "".join(path.read_text() for path in said)
    final, killed_ = numbers_of(JournalReader(folder).read()), int(ends[0] == signal.SIGKILL)
    # what a killed process did last may be noted although it did not come to say so, or have failed with it
    assert told.count("s") <= final[0] <= told.count("s") + killed_
    assert told.count("e") <= final[1] + final[2] <= told.count("e") + 2 * killed_
    assert final[0] == final[1] + final[2]
    assert numbers_of(old.read()) == final
    assert len(segments(folder)) < 10


def test_readers_in_threads_share_one_reader(folder: Path) -> None:
    reader, wrong = JournalReader(folder), list[BaseException]()

    def look() -> None:
        try:
            for _ in range(50):
                reader.read()
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for line in operations(100):
        note(folder, line)
    for thread in threads:
        thread.join()
    assert not wrong
    assert numbers_of(reader.read()) == (100, 90, 10)


def test_a_journal_that_somebody_removed_begins_anew(folder: Path) -> None:
    reader = JournalReader(folder)
    for line in operations(5):
        note(folder, line)
    assert numbers_of(reader.read())[0] == 5
    for path in folder.iterdir():
        path.unlink()
    assert numbers_of(reader.read())[0] == 0
    note(folder, started("a"))
    assert numbers_of(reader.read())[0] == 1


def test_ten_thousand_operations_take_some_segments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a tenth of both, for time
    monkeypatch.setattr(journal_files, "SEGMENT_BYTES", journal_files.SEGMENT_BYTES // 10)
    for line in operations(1000):
        note(folder, line)
    assert sum(path.stat().st_size for path in folder.iterdir()) < (KEPT_SEGMENTS + 2.5) * journal_files.SEGMENT_BYTES
    assert read(folder) == (1000, 900, 100)


def test_damaged_totals_lose_what_they_counted_and_no_more(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "somewhere").mkdir(parents=True)
    (folder / journal_files.TOTALS).write_text("{")
    note(folder, started("a"))
    assert read(folder) == (1, 0, 0)
    assert "are damaged" in caplog.text


def test_totals_of_a_newer_version_are_left_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    note(folder, started("a"))
    newer = json.dumps({"version": 2, "through": 0})
    (folder / journal_files.TOTALS).write_text(newer)
    for _ in range(KEPT_SEGMENTS + 2):
        segment(folder, segments(folder)[-1] + 1).touch()
    compact(folder)
    assert "version 2" in caplog.text
    assert (folder / journal_files.TOTALS).read_text() == newer
    with pytest.raises(ValueError, match="version 2"):
        JournalReader(folder).read()
