"""How people name a plan: by the path of its file, or by the name of a saved block."""

from __future__ import annotations

import os
from pathlib import Path


def is_path(reference: str) -> bool:
    """Tell whether a plan is meant as a file rather than as the name of a saved block."""
    return Path(reference).suffix in (".yaml", ".yml") or os.sep in reference
