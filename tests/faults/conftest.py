from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this machine remembers of the repositories that a module makes once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _own_state_home(state_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))
