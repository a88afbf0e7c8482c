"""A Prefect server that has just started may answer 503 for a moment: whatever asks it, asks again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.demo.uses import use_prefect
from deployments.serve import reachable_server
from deployments.server import start_server
from tests.busy_server import BusyServer, busy_server


@pytest.fixture(params=[1, 3])
def busy(request: pytest.FixtureRequest) -> Iterator[BusyServer]:
    """A server that is configured, and busy at first."""
    with busy_server(request.param) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        yield server


def test_serve_uses_it_and_starts_none(busy: BusyServer, tmp_path: Path) -> None:
    with reachable_server(tmp_path / "home") as api_url:
        assert api_url == busy.api_url
    assert busy.answers == [503] * busy.busy + [200]
    assert not (tmp_path / "home").exists()


def test_the_demo_uses_it_and_starts_none(busy: BusyServer, tmp_path: Path) -> None:
    assert not use_prefect(tmp_path / "home").started
    assert busy.answers == [503] * busy.busy + [200]
    assert not (tmp_path / "home").exists()


def test_one_that_another_command_has_just_started_is_waited_for(busy: BusyServer, tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"pid": os.getpid(), "port": busy.server_port}))
    with (tmp_path / "server.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert start_server(tmp_path).api_url == busy.api_url
    assert busy.answers == [503] * busy.busy + [200]
