"""Arrow without pandas: at the first array that is made it would import pandas, to know pandas' own objects."""

from __future__ import annotations

import sys
from contextlib import suppress

import pyarrow as pa


class _Hidden:
    """Says that there is no pandas."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Refuse the one module, and leave all others to those who look next."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def spare_pandas() -> None:
    """Keep Arrow from importing pandas until somebody asks it for a frame.

    For a process of the command's own. Only Arrow is made to believe that there is none; whatever else wants pandas
    imports it as always.
    """
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)


def know_pandas() -> None:
    """Let Arrow know the objects of pandas again, for code that is not ours and may give it some."""
    with suppress(Exception):  # one that is broken is not missed
        pa.nulls(0).to_pandas()
