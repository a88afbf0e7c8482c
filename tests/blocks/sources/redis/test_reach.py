"""What `plan check` finds out of a Redis: its version and place, and whether a private one can be started here."""

from __future__ import annotations

import pytest

from blocks.errors import ProgramMissing, SourceUnavailable
from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.kit import RedisServer, free_port


def test_a_server_is_reached_and_nothing_is_asked_of_its_history(live: RedisServer) -> None:
    source = RedisSource(url=live.url, consistent=True)
    assert live.url.removeprefix("redis://").partition("/")[0] in source.reach()
    assert source.scratch_need().endswith("redis-server")


def test_what_is_not_there_is_said(tmp_path: object) -> None:
    with pytest.raises(SourceUnavailable):
        RedisSource(url=f"redis://127.0.0.1:{free_port()}").reach()
    with pytest.raises(SourceUnavailable, match=r"none\.rdb cannot be read"):
        RedisSource(url=f"{tmp_path}/none.rdb").reach()
    with pytest.raises(ProgramMissing):
        RedisSource(server_program="no-such-redis-server").scratch_need()
