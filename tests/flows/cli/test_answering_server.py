"""Whether a command finds the Prefect server that is configured."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.running import answering_server
from tests.busy_server import busy_server


@pytest.mark.parametrize("busy", [0, 1, 3])
def test_a_server_that_is_busy_at_first_is_found(busy: int) -> None:
    with busy_server(busy) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        assert answering_server() == server.api_url
        assert server.answers == [503] * busy + [200]


def test_a_server_that_stays_busy_is_given_up() -> None:
    with busy_server(1000) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        assert answering_server() is None
        assert len(server.answers) == 5


def test_a_server_that_is_not_there_is_not_waited_for() -> None:
    with busy_server(0) as server:
        gone = server.api_url
    with temporary_settings({PREFECT_API_URL: gone}):
        assert answering_server() is None
