"""Every relative link in the documents leads to something, and every anchor to a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"(?<!\\)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
IMAGE = re.compile(r"(?:src|srcset|href)=\"([^\"\s]+)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")


def prose(text: str) -> str:
    """Leave out code, in which brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    """Name the anchors of a document's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*#*$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[slug] = found.get(slug, 0) + 1
    return {slug if n == 0 else f"{slug}-{n}" for slug, count in found.items() for n in range(count)}


def links(document: Path) -> list[str]:
    text = prose(document.read_text())
    return [link for link in (*LINK.findall(text), *IMAGE.findall(text)) if not ELSEWHERE.match(link)]


def leads(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    there = (document.parent / path).resolve() if path else document
    if not there.exists() or not there.is_relative_to(ROOT):
        return False
    return not anchor or (there.suffix == ".md" and anchor in anchors(there.read_text()))


def dead(document: Path) -> list[str]:
    return [link for link in links(document) if not leads(document, link)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_and_anchors_lead_somewhere(document: Path) -> None:
    assert dead(document) == []


def test_dead_links_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_links.ROOT", tmp_path)
    (tmp_path / "a.md").write_text(
        "# One, `two`\n\n## One two\n\n[x](b.md) [y](#one-two-1) [z](a.md#one-two) ![i](i.png)\n"
    )
    assert dead(tmp_path / "a.md") == ["b.md", "i.png"]
    (tmp_path / "b.md").write_text("[x](a.md#three) `[no](link)` [y](https://example.org/z)\n")
    assert dead(tmp_path / "b.md") == ["a.md#three"]


def test_the_documents_have_links() -> None:
    assert len(links(ROOT / "README.md")) > 5
    assert any("#" in link for document in DOCUMENTS for link in links(document))
