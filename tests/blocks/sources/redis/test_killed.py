"""What a killed restore had put out of the way is removed only where nothing is lost by it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.temporary_names import TEMPORARY
from blocks.sources.redis.write.guard import Guard
from tests.blocks.sources.redis.kit import RedisServer, prepare, read_all, write_all
from tests.blocks.sources.redis.undo_kit import put, rescue, restore, scope_of, undo
from tests.conformance.children import Child


def restore_and_die(url: str, kept: Path, *late: str) -> None:
    """Restore what is kept, in a child, and be killed where the late look is."""

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Guard.late = killed  # type: ignore  it is the child's own
    source = RedisSource(url=url, part_size_bytes=40_000)
    backup = read_all(source.at(str(kept)))
    target = source.target(scope_of(backup, source))
    target.preflight()
    rescue(source, target)
    put(backup, source, target)
    write = target._write

    def written_before(server: Any, swap: Any) -> None:
        with server.connection(0) as connection:
            connection.ask(packed(*late), 1)
        write(server, swap)

    if late:
        target._write = written_before
    target.commit()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "one")
    yield server
    server.kill()


def killed(server: RedisServer, folder: Path, *late: str) -> RedisSource:
    """Restore an older state, and be killed when the new content is there and what was there before is not looked at.

    Args:
        late: A command that is run after the last look at what is replaced.
    """
    server.many([("SET", "a", "older"), ("HSET", "h", "f", 1, "g", 2), ("RPUSH", "l", 1, 2), ("ZADD", "z", 1, "m")])
    source = RedisSource(url=server.url, part_size_bytes=40_000)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, str(folder / "kept.rdb")))
    server.many(
        [("SET", "a", "newer"), ("HSET", "h", "f", 3), ("RPUSH", "l", 3), ("ZADD", "z", 2, "n"), ("SET", "b", 1)]
    )
    assert Child.ended_by(lambda: restore_and_die(server.url, folder / "kept.rdb", *late)) == signal.SIGKILL
    assert server("KEYS", TEMPORARY + b"*:old:*")
    return source


@pytest.mark.parametrize(
    ("late", "key", "holds"),
    [
        (("SET", "a", "late"), "a", "late"),
        (("HSET", "h", "x", "late"), "h", {b"f": b"3", b"g": b"2", b"x": b"late"}),
    ],
)
def test_what_was_written_right_before_a_restore_was_killed_outlives_undo_and_repetition(
    one: RedisServer, tmp_path: Path, late: tuple[str, ...], key: str, holds: Any
) -> None:
    source = killed(one, tmp_path, *late)
    backup = read_all(source.at(str(tmp_path / "kept.rdb")))
    _, target = restore(backup, source)
    kept = [name for name in one("KEYS", "lastgood:aside:*") if name.endswith(b":" + key.encode())]  # type: ignore[union-attr]
    assert len(kept) == 1
    found = one("GET", kept[0]) if isinstance(holds, str) else one("HGETALL", kept[0])
    if isinstance(holds, str):
        assert found == holds.encode()
    else:
        assert dict(zip(found[::2], found[1::2], strict=True)) == holds  # type: ignore[index]
    assert any(kept[0].decode() in note for note in target.notes)
    assert not one("KEYS", TEMPORARY + b"*")


def test_what_an_undo_has_brought_back_is_not_kept_twice(one: RedisServer, tmp_path: Path) -> None:
    newer = [
        ("SET", "a", "newer"),
        ("HSET", "h", "f", 3, "g", 2),
        ("RPUSH", "l", 1, 2, 3),
        ("ZADD", "z", 1, "m", 2, "n"),
    ]
    other = RedisServer(tmp_path / "other")
    try:
        other.many([*newer, ("SET", "b", 1)])
        emergency = read_all(RedisSource(url=other.url, part_size_bytes=40_000))
    finally:
        other.kill()
    source = killed(one, tmp_path)
    undo(emergency, source)
    assert not one("KEYS", "lastgood:*")
    assert one("GET", "a") == b"newer"
