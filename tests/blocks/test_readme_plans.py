"""The plans that the README shows are plans."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from blocks.plan import parse_plan

README = Path(__file__).parents[2] / "README.md"


def test_every_source_that_the_readme_shows_is_one() -> None:
    whole, *more = re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    plan = yaml.safe_load(whole)
    assert more
    for text in more:
        parsed = parse_plan(plan | yaml.safe_load(text), "README.md")
        assert [source.type for source in parsed.sources.values()] == ["redis", "postgres"]
