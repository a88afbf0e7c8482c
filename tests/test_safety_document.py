"""docs/safety.md: every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "safety.md").read_text()


def test_every_promise_names_tests_that_exist() -> None:
    sources = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    defined = {name for text in sources.values() for name in re.findall(r"def (test_\w+)", text)}
    promised = [
        line for line in TEXT.splitlines() if line.startswith("| ") and "test" in line and "| promise |" not in line
    ]
    assert len(promised) > 30
    for line in promised:
        named = re.findall(r"`(test_\w+)`", line)
        files = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)`", line)
        assert named or files, line
        assert set(named) <= defined, line
        assert all(any(str(path).endswith(f"/{file}") for path in sources) for file in files), line
