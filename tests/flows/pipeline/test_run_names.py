"""Runs are called by the plan's name, whatever its file is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.pipeline.run_names import plan_name

PLAN = """
name: {name}
sources: {{ledger: {{type: sqlite, path: ./ledger.db}}}}
repository: {{url: ./backups}}
encryption: none
"""


@pytest.mark.parametrize("file", ["trading.yaml", "ledger.yml", "plan", "a.b.yaml"])
def test_the_name_is_what_the_plan_says(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text(PLAN.format(name="ledger-2.eu"))
    assert plan_name(str(tmp_path / file)) == "ledger-2.eu"


@pytest.mark.parametrize("text", ["", "name: [", "name: ledger", PLAN.format(name="Not a name"), "\0"])
def test_a_plan_that_is_wrong_is_called_by_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "trading.yaml").write_text(text)
    assert plan_name(str(tmp_path / "trading.yaml")) == "trading"


def test_a_plan_that_is_not_there_is_called_by_its_file(tmp_path: Path) -> None:
    assert plan_name(str(tmp_path / "gone.yaml")) == "gone"


def test_a_pipe_is_left_to_whoever_reads_the_plan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trading.yaml")
    assert plan_name(str(tmp_path / "trading.yaml")) == "trading"
