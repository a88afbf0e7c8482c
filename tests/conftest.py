"""Shared by all tests: no telemetry, no home of the user's, a Hypothesis profile without deadlines."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.in_memory import in_memory

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

if folder := in_memory():
    # pytest's own variable for where `tmp_path` is
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)

settings.register_profile("lastgood", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("lastgood")

# what is imported and collected stays, so that to look for garbage meanwhile only costs time
gc.disable()


def pytest_collection_finish() -> None:
    """Leave modules and tests out of every garbage collection from here on; nothing of them goes before the end."""
    gc.collect()
    gc.freeze()
    # after a freeze what was kept counts as nothing, and full collections would come all the time
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session")
def _state_homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each test has its own; for each folder that it makes itself, pytest looks through all that are there."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture(autouse=True)
def _own_state_home(_state_homes: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what lastgood remembers of repositories out of the user's home."""
    home = tempfile.mkdtemp(dir=_state_homes)
    monkeypatch.setenv("XDG_STATE_HOME", home)
    return Path(home)
