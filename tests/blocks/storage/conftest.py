"""Servers for tests of tiers: started by the first test of a process that needs one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blocks.storage import kinds
from tests.cloud_servers import Azurite, Google, azurite_server, google_server
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.object_servers import Seaweed


@pytest.fixture(autouse=True)
def _no_opened_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open tiers anew in each test: they hold what the environment said when they were opened."""
    monkeypatch.setattr(kinds, "_opened", {})


@pytest.fixture(scope="session")
def azurite_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite_server(tmp_path_factory.mktemp("azurite") / "server") as server:
        yield server


@pytest.fixture
def az(azurite_process: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """A server that speaks Azure Blob Storage, with its credentials in the environment."""
    for name, value in azurite_process.environment.items():
        monkeypatch.setenv(name, value)
    return azurite_process


@pytest.fixture(scope="session")
def google_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    with google_server(tmp_path_factory.mktemp("google") / "server") as server:
        yield server


@pytest.fixture
def gs(google_process: Google) -> Iterator[Google]:
    """A server that speaks Google Cloud Storage."""
    yield google_process
    google_process.proxy.faults.clear()


@pytest.fixture
def proxy(s3: Seaweed) -> Iterator[FaultProxy]:
    """A proxy before the S3 server, which spoils what it is told to."""
    with fault_proxy(s3.port) as running:
        yield running
