"""Shared by all tests: no telemetry, no home of the user's, a Hypothesis profile without deadlines."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.in_memory import in_memory

if TYPE_CHECKING:
    from tests.object_servers import Seaweed

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
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(home) / "cache"))
    return Path(home)


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server, one for each process of the tests; tests have buckets of their own."""
    from tests.object_servers import seaweed

    with seaweed(tmp_path_factory.mktemp("seaweed") / "server") as server:
        yield server


@pytest.fixture
def s3(seaweed_server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """The S3 server, with its credentials in the environment."""
    for name, value in seaweed_server.environment.items():
        monkeypatch.setenv(name, value)
    return seaweed_server
