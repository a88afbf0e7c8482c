"""Lines that a terminal shows."""

from __future__ import annotations

import io

import pytest

from flows.cli.output import folded


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LONG = "FUL_20260102_030405_9f3a" * 4


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("found: " + "word " * 8, ["found: word word word word word word", "  word word"]),
        ("  warning: " + "word " * 7, ["  warning: word word word word word word", "    word"]),
        (f"found: {LONG} is damaged", ["found:", f"  {LONG}", "  is damaged"]),
        ("one\ntwo", ["one", "two"]),
        (
            "hint: Look at it: `lastgood undo trading.yaml --preview`.",
            ["hint: Look at it:", "  `lastgood undo trading.yaml --preview`."],
        ),
        ("a-name-with-dashes " * 3, ["a-name-with-dashes a-name-with-dashes", "  a-name-with-dashes"]),
    ],
)
def test_a_terminal_s_lines_end_between_words(text: str, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert [line.rstrip() for line in folded(text, _Terminal()).splitlines()] == lines
    assert folded(text, io.StringIO()) == text
