"""One real Prefect server for all tests of this folder, and plans to run on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.settings import temporary_settings

from deployments.server import local_server
from tests.e2e.prefect_support import STARTERS_SECRET, Prefect, SmallPlan


@pytest.fixture(scope="package")  # its services keep a processor busy, though nobody asks for anything
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """A server on a free port, with its data in a folder of its own; stopped at the end.

    Its starter knows a passphrase, which must not become the server's.
    """
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LASTGOOD_PASSPHRASE", STARTERS_SECRET)
            server = stack.enter_context(local_server(tmp_path_factory.mktemp("prefect"), port=0))
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
