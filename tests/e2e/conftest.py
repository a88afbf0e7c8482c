"""One real Prefect server for all tests of this folder, and plans to run on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import temporary_settings

from tests.e2e.prefect_support import Prefect, SmallPlan
from tests.e2e.shared_server import SharedServer


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    """The server of this run, whether it runs or not."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker's own is in there
    shared = SharedServer(folder / "prefect-server")
    yield shared
    shared.close()


@pytest.fixture(scope="package")
def prefect_server(shared_server: SharedServer) -> Iterator[Prefect]:
    """The server, running, as all tests of all processes use it: what a test makes there has names of its own."""
    with shared_server.used() as server:
        yield Prefect(server)


@pytest.fixture
def prefect(prefect_server: Prefect) -> Iterator[Prefect]:
    """The server, with this process as its client."""
    settings = prefect_server.server.settings()
    with temporary_settings({**settings, "flows.heartbeat_frequency": None}):
        yield prefect_server


@pytest.fixture
def small_plan(tmp_path: Path) -> SmallPlan:
    """A plan over a small ledger and a few files, with its repository made."""
    return SmallPlan(tmp_path / "shop")
