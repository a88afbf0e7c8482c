"""The monitoring command: it needs no plan, prints what it wrote, and writes over nothing."""

from __future__ import annotations

from pathlib import Path

from deployments.monitoring.files import NAMES, monitoring_files
from tests.flows.cli.desk import Desk


def test_it_writes_the_files_of_a_site_once(empty_desk: Desk) -> None:
    folder = empty_desk.folder / "etc" / "lastgood"
    words = ["monitoring", str(folder), "--prefix", "site", "--target", "one:9817", "--target", "two:9817"]
    assert empty_desk.done(*words).out.splitlines() == [str(folder / name) for name in NAMES]
    expected = monitoring_files("site", ["one:9817", "two:9817"])
    assert {path.name: path.read_text() for path in folder.iterdir()} == expected
    again = empty_desk.run(*words)
    assert (again.code, again.out) == (2, "")
    assert "is not written over" in again.err


def test_a_mistake_is_said_before_anything_is_written(empty_desk: Desk) -> None:
    for words in (["--prefix", "1"], ["--target", "localhost"], ["--target", "a:0"], ["--target", "a:65536"]):
        assert empty_desk.run("monitoring", "./files", *words).code == 2
        assert not Path("files").exists()


def test_a_file_is_no_folder(empty_desk: Desk) -> None:
    ran = empty_desk.run("monitoring", "PLAN")
    assert (ran.code, ran.out) == (2, "")
    assert "is a file, and no folder" in ran.err
