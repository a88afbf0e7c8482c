"""What `plan check` finds out of a server: its version, what a role may not read, and whether it may make databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.errors import PlaceUnfit, ProgramMissing, SourceUnavailable
from blocks.sources.postgres import PostgresSource
from blocks.sources.postgres.connect import altered
from tests.postgres_server import PostgresServer


def test_a_server_is_reached_and_what_a_role_lacks_is_named(server: PostgresServer, tmp_path: Path) -> None:
    server.run("postgres", "DROP DATABASE IF EXISTS reached", "DROP ROLE IF EXISTS poor", "CREATE ROLE poor LOGIN")
    server.create("reached", "CREATE TABLE mine (id int PRIMARY KEY)")
    pg_dump = str(server.programs.pg_dump)
    own = PostgresSource(dsn=SecretStr(server.dsn("reached")), pg_dump=pg_dump)
    assert own.reach().startswith(f"PostgreSQL {server.programs.version}.")
    assert "may create" in (own.scratch_need() or "")
    poor = own.model_copy(update={"dsn": SecretStr(altered(server.dsn("reached"), user="poor"))})
    with pytest.raises(SourceUnavailable, match=r"the table public\.mine cannot be read"):
        poor.reach()
    with pytest.raises(PlaceUnfit, match="CREATEDB"):
        poor.scratch_need()
    with pytest.raises(ProgramMissing, match="pg_dump"):
        own.model_copy(update={"pg_dump": str(tmp_path / "none")}).reach()
    server.run("postgres", "DROP DATABASE reached", "DROP ROLE poor")
