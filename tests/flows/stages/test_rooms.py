"""Every stage is a room with the same furniture: a task on the way down, a task on the way up, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.flows import flow_support

STAGES = Path(flow_support.__file__).parents[2] / "flows" / "stages"
MODULES = sorted(path for path in STAGES.glob("*.py") if path.name != "__init__.py")


def test_there_are_seven_stages() -> None:
    assert {path.stem for path in MODULES} == {
        *("collect", "normalize", "diff", "compress", "encrypt", "store", "record"),
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_stage_is_two_tasks(path: Path) -> None:
    docstring, *body = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr)
    down, up = (node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom)))
    assert isinstance(down, ast.FunctionDef)
    assert isinstance(up, ast.FunctionDef)
    assert down.name == path.stem
    for function in (down, up):
        (decorator,) = function.decorator_list
        assert isinstance(decorator, ast.Call)
        assert ast.unparse(decorator.func) == "task"
