"""Wide keys that could not be built as a whole, whatever the reason: the live key stays, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pytest

from blocks.errors import LastgoodError, RestoreRefused
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Word, packed
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.redis.temporary_names import OURS, TEMPORARY
from blocks.sources.target import RestoreMode, Target
from tests.blocks.sources.redis.kit import FAR_MS, Backup, RedisServer, prepare, read_all
from tests.blocks.sources.redis.undo_kit import proxied, put, rescue, scope_of, state

COUNT, LONG = 12_000, "x" * 40
KINDS: dict[str, list[tuple[Word, ...]]] = {
    "list": [("RPUSH", "k", *[f"{n}{LONG}" for n in range(COUNT)])],
    "hash": [("HSET", "k", *[word for n in range(COUNT) for word in (n, f"{n}{LONG}")])],
    "set": [("SADD", "k", *[f"{n}{LONG}" for n in range(COUNT)])],
    "zset": [("ZADD", "k", *[word for n in range(COUNT) for word in (n, f"{n}{LONG}")])],
    "stream": [("XADD", "k", f"1-{n + 1}", "f", f"{n}{LONG}") for n in range(3_000)],
}
WAYS = ["guarded", "unguarded", "elsewhere"]

# what is restored was read on every version by other tests, and how it is sent is theirs too
pytestmark = pytest.mark.one_redis

Begun = tuple[Backup, RedisSource]


def begin(live: RedisServer, kind: str) -> Begun:
    """Put a wide key and back it up; what the key holds now is something else, with an expiry."""
    live.many(KINDS[kind])
    live("SET", "a", 1)
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("DEL", "k"), ("HSET", "k", "live", "yes"), ("PEXPIREAT", "k", FAR_MS), ("SET", "a", 2)])
    return backup, source


def failed(begun: Begun, live: RedisServer, way: str, look: Callable[[bytes], None]) -> LastgoodError:
    """Restore while something happens, and return the error."""
    backup, source = begun
    with proxied(live.port, look) as proxy:
        through = source.model_copy(update={"url": proxy.url})
        scope = scope_of(backup, through, in_place=way != "elsewhere", overwrite=way == "elsewhere")
        target = through.target(scope, proxy.url if way == "elsewhere" else None)
        if way == "guarded":
            rescue(through, target)
        return error_of(target, partial(put, backup, through, target))


def error_of(target: Target, stage: Callable[[], None]) -> LastgoodError:
    try:
        stage()
        with pytest.raises(LastgoodError) as caught:
            target.commit()
        return caught.value
    finally:
        target.abort()


def remove_built(live: RedisServer) -> bool:
    built = live("KEYS", TEMPORARY + b"*:new:*")
    return bool(built) and live("DEL", *built) == 1  # type: ignore[misc]


def held(live: RedisServer) -> tuple[object, object]:
    return live("HGETALL", "k"), live("PEXPIRETIME", "k")


def left(live: RedisServer) -> list[bytes]:
    return [key for key in live("KEYS", "*") if key.startswith(OURS) and not key.endswith(b":a")]  # type: ignore[union-attr]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_a_server_evicts_while_it_is_built_takes_no_keys_place(live: RedisServer, kind: str, way: str) -> None:
    """An eviction of what was built so far is a removal, and the next command begins it anew."""
    begun, before, seen = begin(live, kind), held(live), [False]

    def look(data: bytes) -> None:
        if b":new:k" in data and not any(seen):
            seen.append(remove_built(live))

    error = failed(begun, live, way, look)
    assert "'k'" in error.message
    assert held(live) == before
    assert not left(live)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_evicted_right_before_it_takes_its_place_leaves_the_key(live: RedisServer, kind: str, way: str) -> None:
    begun, before = begin(live, kind), held(live)

    def look(data: bytes) -> None:
        if b"RENAME" in data and b":new:k" in data and b":probe:" not in data:
            remove_built(live)

    error = failed(begun, live, way, look)
    assert "key b'k' was removed while it was being built" in error.message
    assert "maxmemory" in error.hint
    assert held(live) == before
    assert not left(live)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_command_that_is_refused_leaves_the_key_and_no_half_of_another(
    live: RedisServer, kind: str, way: str
) -> None:
    begun, before, seen = begin(live, kind), held(live), []

    def look(data: bytes) -> None:
        seen.append(b":new:k" in data)
        if sum(seen) == 2:
            live("CONFIG", "SET", "maxmemory", 1)

    error = failed(begun, live, way, look)
    assert "OOM" in error.message
    assert held(live) == before
    assert not left(live)


def test_a_restore_after_one_that_failed_is_whole(live: RedisServer) -> None:
    begun, seen = begin(live, "list"), []

    def look(data: bytes) -> None:
        seen.append(b":new:k" in data)
        if sum(seen) == 2:
            live("CONFIG", "SET", "maxmemory", 1)

    failed(begun, live, "guarded", look)
    live("CONFIG", "SET", "maxmemory", 0)
    backup, source = begun
    target = prepare(backup, source)
    put(backup, source, target)
    target.commit()
    assert state(source) == {"db0": sorted(backup.table("db0").to_pylist(), key=repr)}


@pytest.mark.parametrize("wide", [False, True])
def test_a_score_that_is_no_number_is_found_before_anything_is_written(live: RedisServer, wide: bool) -> None:
    live("SET", "k", "stays")
    live("CONFIG", "SET", "zset-max-listpack-entries", 0)  # packed, it would take the set
    source = RedisSource(url=live.url)
    backup = read_all(source)
    row: dict[str, object] = {"key": b"k", "element": None, "type": "zset", "value": packed("m", "nan")}
    rows = [row] if not wide else [row | {"value": None}, row | {"element": b"m", "value": b"nan"}]
    target = prepare(backup, source, mode=RestoreMode.MERGE)
    with pytest.raises(RestoreRefused, match="b'k'"):
        target.apply(backup.specs["db0"], pa.Table.from_pylist(rows, schema=SCHEMA))
    target.abort()
    assert live("GET", "k") == b"stays"
