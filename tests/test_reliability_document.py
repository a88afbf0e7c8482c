"""docs/reliability.md: every test and every program that it names is there, and `make faults` runs them all."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def rows(after: str) -> list[str]:
    """The rows of the table below a heading."""
    section = TEXT.split(f"## {after}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_promise_names_tests_that_exist() -> None:
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    defined = {name for text in sources.values() for name in re.findall(r"def (test_\w+)", text)}
    promised = rows("What is promised")
    assert len(promised) > 12
    for line in promised:
        _, test, cases, _ = (cell.strip() for cell in line.strip("|").split(" |"))
        named, files = re.findall(r"`(test_\w+)`", test), re.findall(r"`(tests/[\w/]+\.py)`", test)
        assert named or files, line
        assert set(named) <= defined, line
        assert all((ROOT / file).is_file() for file in files), line
        assert cases, line


def test_every_program_is_there_and_is_run_by_make_faults() -> None:
    programs = [re.findall(r"`(\w+)`", line)[0] for line in rows("How it is tried")]
    assert all((ROOT / "tests" / "faults" / f"{name}.py").is_file() for name in programs)
    found = re.search(r"^FAULTS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    assert found[1].split() == programs
