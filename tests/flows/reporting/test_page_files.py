"""Where pages go: in one step, never over what is not ours, and a bounded number of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError
from flows.reporting import page_files
from flows.reporting.page_files import check_page, keep_page, keep_report, page_url, write_page
from flows.reporting.proof_page import proof_page
from tests.flows.reporting.records import evidence, verification


@pytest.fixture(scope="module")
def page() -> str:
    return proof_page(evidence(verification()))


def test_a_page_is_written_for_its_owner_and_replaced_in_one_step_with_the_mode_it_has(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_page(path, page)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    before = path.stat().st_ino
    write_page(path, page + "\n")
    assert (path.read_text(), path.stat().st_mode & 0o777) == (page + "\n", 0o644)
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
        write_page(path, page)
    assert path.read_text() == page + "\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["a plan", "a folder", "a FIFO", "a dangling link", "no folder", "another page"])
def test_what_is_no_page_of_ours_is_never_replaced(tmp_path: Path, page: str, what: str) -> None:
    path = tmp_path / "there"
    match what:
        case "a plan":
            path.write_text("name: trading")
        case "a folder":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "no folder":
            path = tmp_path / "missing" / "report.html"
        case _:
            path.write_text('<html><!-- <meta name="generator" content="other"> -->')
    before = sorted(tmp_path.iterdir())
    for refused in (lambda: check_page(path), lambda: write_page(path, page)):
        with pytest.raises(ConfigurationError, match="no report"):
            refused()
    assert sorted(tmp_path.iterdir()) == before


def test_the_newest_pages_of_a_plan_are_kept_and_nothing_else_is_touched(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "lastgood" / "reports" / "trading"
    kept = [keep_page(verification(day % 2, sequence=day + 1), page) for day in range(page_files.MOST_PAGES + 3)]
    (folder / "notes.html").write_text("mine")
    for number, path in enumerate(kept):
        if path is not None and path.exists():
            os.utime(path, (number, number))
    last = keep_page(verification(1, sequence=99), page)
    assert last == folder / "FUL_20260302_040000_9f3a-000099.html"
    assert {path.name for path in folder.iterdir()} == {
        "notes.html", last.name, *(path.name for path in kept[4:] if path)
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700
    assert last.stat().st_mode & 0o777 == 0o600


def test_a_verification_without_a_number_is_named_by_its_time(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTGOOD_REPORTS", str(tmp_path / "shown"))
    path = keep_page(verification(sequence=None), page)
    assert path == tmp_path / "shown" / "trading" / "FUL_20260301_040000_9f3a-20260301T050000.000000Z.html"


def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LASTGOOD_REPORTS", str(tmp_path / "file"))
    assert keep_page(verification(), page) is None
    assert "the page of results of backup FUL_20260301_040000_9f3a cannot be kept" in caplog.text
    assert keep_report("trading", page) is None
    assert "the report of plan trading cannot be kept" in caplog.text


def test_a_report_takes_the_place_of_the_one_before_and_is_none_of_the_pages_that_are_counted(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTGOOD_REPORTS", str(tmp_path))
    monkeypatch.setattr(page_files, "MOST_PAGES", 1)
    path = keep_report("trading", "the first")
    assert path == tmp_path / "trading" / "report.html"
    keep_report("trading", page)
    keep_page(verification(0), page)
    last = keep_page(verification(1), page)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (page, 0o600)
    assert {one.name for one in path.parent.iterdir()} == {"report.html", last.name if last else ""}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://desk.example/proofs/", "https://desk.example/proofs/trading/FUL_1.html"),
        ("javascript:alert(1)", None),
        ("", None),
    ],
)
def test_a_page_has_an_address_where_something_serves_the_folder(
    base: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTGOOD_REPORTS_URL", base)
    assert page_url(Path("/srv/reports/trading/FUL_1.html")) == url
