"""Names and values are shown as they are, whatever Markdown and HTML would make of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from markdown_it import MarkdownIt

from blocks.sources.target import RestoreMode
from flows.pipeline.results import CollectionResult, ObjectNotRebuilt, RestoreResult
from flows.reporting.artifacts import restore_markdown
from flows.reporting.markdown import plain

ODD = "a|b `c` <i>d</i> *e* _f_ g_h_i ~~j~~ [k](l) #m &lt; \\n"


@pytest.mark.parametrize("text", [ODD, "_x_", "__init__", "snake_case_name", "FUL_20260101_000000_0a0b", "# no header"])
def test_a_person_sees_what_was_there(text: str) -> None:
    shown = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(plain(text))
    assert [token.type for token in shown] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in shown[1].children or []} == {"text"}
    assert "".join(child.content for child in shown[1].children or []) == text


def test_what_is_on_one_line_stays_on_it() -> None:
    assert plain("a\nb\r\tc") == "a b  c"


def test_what_a_restore_names_is_shown_as_it_is() -> None:
    result = RestoreResult(
        plan="books",
        backup_id="FUL_20260101_000000_0a0b",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        mode=RestoreMode.EXACT,
        collections=[CollectionResult(collection=ODD, rows=7, added=1)],
        places={"ledger": "/srv/_a_/<b>"},
        notes=["*x* was left"],
        not_rebuilt=[ObjectNotRebuilt(source="db", name="view _v_", reason="it|breaks")],
        seconds=1.0,
    )
    tokens = MarkdownIt("commonmark").enable("table").parse(restore_markdown(result, "plan.yaml"))
    inline = ["".join(one.content for one in token.children or []) for token in tokens if token.type == "inline"]
    marks = {child.type for token in tokens for child in token.children or []}
    assert marks <= {"text", "code_inline", "softbreak"}
    for text in (ODD, "*x* was left", "db: view _v_: it|breaks"):
        assert text in inline
    assert any("ledger: /srv/_a_/<b>" in one for one in inline)
    assert sum(token.type == "td_open" for token in tokens) == 3, "a name makes no other column"
