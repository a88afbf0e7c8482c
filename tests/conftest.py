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
    from tests.object_servers import Rclone, Seaweed
    from tests.sftp_server import SftpServer

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

if folder := in_memory():
    # pytest's own variable for where `tmp_path` is
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)

settings.register_profile("lastgood", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("lastgood")

# what is imported and collected stays, so that to look for garbage meanwhile only costs time
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most cases of a test that is marked `share(n)` to `make faults`: `make test` has each n-th of them."""
    seen: dict[str, int] = {}
    for item in items:
        if (marked := item.get_closest_marker("share")) is not None:
            test = item.nodeid.partition("[")[0]
            seen[test] = seen.get(test, -1) + 1
            if seen[test] % marked.args[0]:
                item.add_marker("long")


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


@pytest.fixture(scope="session")
def sftp_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """OpenSSH's SFTP server, one for each process of the tests; tests have folders of their own."""
    from tests.sftp_server import sftp_server

    with sftp_server("openssh", tmp_path_factory.mktemp("sftp") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def rclone_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """A server that speaks S3 and lets objects be created twice, one for each process of the tests."""
    from tests.object_servers import rclone

    with rclone(tmp_path_factory.mktemp("rclone") / "server") as server:
        yield server


@pytest.fixture
def sftp(sftp_process: SftpServer) -> Iterator[SftpServer]:
    """The SFTP server, without connections of other tests."""
    yield sftp_process
    sftp_process.release()


@pytest.fixture
def careless_s3(rclone_process: Rclone, monkeypatch: pytest.MonkeyPatch) -> Rclone:
    """That server, with its credentials in the environment."""
    from tests.object_servers import KEY_ID, KEY_ID_ENV, SECRET, SECRET_ENV

    monkeypatch.setenv(KEY_ID_ENV, KEY_ID)
    monkeypatch.setenv(SECRET_ENV, SECRET)
    return rclone_process
