"""Which Prefect the demo runs on: the one that is configured where it answers, or a local server of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import get_current_settings, temporary_settings

from deployments.server import deliver, start_server

_CLIENT: dict[str, Any] = {
    # a sync flow waits for its heartbeat thread at its end, up to a second
    "flows.heartbeat_frequency": None,
}


@dataclass(frozen=True)
class PrefectInUse:
    """A Prefect server and the settings that lead to it.

    Attributes:
        ui_url: Where its user interface is.
        started: Whether it is one of our own.
        settings: Of its clients.
    """

    ui_url: str
    started: bool
    settings: dict[Any, Any]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run flows on it; their logs go to the server, and not to the terminal."""
        with temporary_settings(self.settings | _CLIENT), _quiet_terminal():
            try:
                yield
            finally:
                deliver()


def use_prefect(home: Path) -> PrefectInUse:
    """Return the configured Prefect where it answers, else start one whose data is in `home`."""
    settings = get_current_settings()
    if settings.api.url is not None:
        with get_client(sync_client=True) as client:
            if client.api_healthcheck() is None:
                return PrefectInUse(settings.ui_url or settings.api.url.removesuffix("/api"), False, {})
    server = start_server(home)
    return PrefectInUse(server.ui_url, True, dict(server.settings()))


@contextmanager
def _quiet_terminal() -> Iterator[None]:
    handlers = {
        handler
        for name in ("", *logging.Logger.manager.loggerDict)
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, PrefectConsoleHandler)
    }
    for handler in handlers:
        handler.addFilter(_drop)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return False
