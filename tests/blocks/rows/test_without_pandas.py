"""Arrow imports pandas only where somebody hands it something of pandas' or asks it for a frame."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys
import pyarrow as pa
from blocks.rows.without_pandas import know_pandas, spare_pandas
spare_pandas()
finders = list(sys.meta_path)
pa.array(["a", None])
assert "pandas" not in sys.modules
"""
SERIES = "import pandas as pd; print(pa.array(pd.Series([0.5, float('nan')])).null_count)"


def printed(script: str) -> str:
    ran = subprocess.run([sys.executable, "-c", BEGIN + script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("import pandas; print(pandas.Series([1]).sum())", "1"),
        ("print(pa.table({'a': [1, None]}).to_pandas().a.isna().sum())", "1"),
        (f"know_pandas(); {SERIES}", "1"),
        ("print(any(type(one).__name__ == '_Hidden' for one in sys.meta_path))", "False"),
    ],
)
def test_whoever_wants_pandas_has_it(script: str, expected: str) -> None:
    assert printed(script) == f"{expected}\n"


def test_without_pandas_its_objects_are_not_known_and_nothing_else_is_missed() -> None:
    broken = "sys.modules['pandas'] = None; know_pandas(); print(pa.array([1, None]).null_count)"
    assert printed(broken) == "1\n"
