from __future__ import annotations

from pathlib import Path

import pytest

from tests.blocks.repository_support import Shelf


@pytest.fixture
def state_home(_own_state_home: Path) -> Path:
    """Where this machine keeps what it remembers of repositories."""
    return _own_state_home


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)
