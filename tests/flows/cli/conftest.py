"""A desk per test; no test here finds a Prefect server unless it brings its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.crypto.keyring import generate_key_file
from flows.cli.manner import speak
from tests.flows.cli.desk import PASSPHRASE, Desk


@pytest.fixture(autouse=True)
def _own_process_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the command sets for its process."""
    monkeypatch.setenv("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    yield
    speak([])
    for name in ("blocks", "flows"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def no_server() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture
def empty_desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_server: None
) -> Desk:
    monkeypatch.setenv("LASTGOOD_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, capsys, "passphrase_env: LASTGOOD_PASSPHRASE")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_server: None) -> Desk:
    """A desk with a repository; its key file saves each command the stretching of a passphrase."""
    monkeypatch.chdir(tmp_path)
    generate_key_file(tmp_path / "own.key")
    desk = Desk(tmp_path, capsys, "key_file: ./own.key")
    desk.done("init", "PLAN")
    return desk
