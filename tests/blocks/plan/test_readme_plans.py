"""The plan that the README shows is one, with a source of every type that has a place."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from blocks.plan.plan import parse_plan

README = Path(__file__).parents[3] / "README.md"


def test_the_plan_that_the_readme_shows_is_one() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    plan = parse_plan(yaml.safe_load(text), "README.md")
    assert [source.type for source in plan.sources.values()] == ["sqlite", "redis", "postgres", "files"]
