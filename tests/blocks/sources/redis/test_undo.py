"""A restore in place, what its backup from before covers, and how that is brought back."""

from __future__ import annotations

import random

import pytest

from blocks.errors import Partial, RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.redis.temporary_names import ASIDE, TEMPORARY
from blocks.sources.target import RestoreMode
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, fill_gallery, read_all
from tests.blocks.sources.redis.undo_kit import proxied, put, read_view, rescue, restore, scope_of, state, undo

MERGE, EXACT = RestoreMode.MERGE, RestoreMode.EXACT


def change(server: RedisServer, seed: int = 1) -> None:
    """Make another state of what `fill_gallery` put."""
    rng = random.Random(seed)
    for db in (0, 3):
        server.many([("DEL", "text", "h", "x", "s:wide"), ("SET", "new", "n"), ("HSET", "new:h", "a", 1)], db=db)
        server.many(
            [("RPUSH", "l", "late"), ("ZADD", "z:wide", 5, "m1"), ("HSET", "h:wide", "field7", rng.random())], db=db
        )
        server.many(
            [("PEXPIREAT", "n", FAR_MS), ("RPUSH", "goes2", *range(1500)), ("XADD", "x:cut", "99-1", "a", "b")], db=db
        )
    server("DEL", "only here", db=9)
    server("SET", "elsewhere", "x", db=7)


@pytest.mark.one_redis
@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("selection", [Selection(), Selection(("db3",)), Selection((), ("h*", "new*", "text", "l"))])
def test_what_was_there_before_a_restore_comes_back(live: RedisServer, mode: RestoreMode, selection: Selection) -> None:
    fill_gallery(live)
    source = RedisSource(url=live.url, part_size_bytes=200_000)
    backup = read_all(source)
    change(live)
    before, groups = live.digest(), live.groups()
    emergency, target = restore(backup, source, mode, selection)
    assert target.changed
    assert live.digest() != before
    if mode is EXACT or selection.keys:
        undo(emergency, source, selection)
        assert live.digest() == before
        assert live.groups() == groups
        assert not live("KEYS", "lastgood:*")


def test_an_exact_restore_brings_all_types_back(live: RedisServer) -> None:
    fill_gallery(live)
    source, digest, groups = RedisSource(url=live.url), live.digest(), live.groups()
    backup = read_all(source)
    change(live)
    restore(backup, source)
    assert (live.digest(), live.groups()) == (digest, groups)


@pytest.mark.one_redis
def test_a_merge_is_taken_back_by_removing_what_it_added(live: RedisServer) -> None:
    fill_gallery(live)
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("DEL", "text", "s:wide"), ("SET", "n", 7), ("HDEL", "h:wide", "field3"), ("SET", "mine", 1)])
    before = live.digest()
    emergency, _ = restore(backup, source, MERGE, Selection(("db0",)))
    live("SET", "later", "stays")
    spec = backup.specs["db0"]
    held = {(row["key"], row["element"]) for row in emergency.table().to_pylist()}
    added = [row for row in backup.table().to_pylist() if (row["key"], row["element"]) not in held]
    target = source.target(scope_of(emergency, source, MERGE, Selection(("db0",))))
    target.preflight()
    rescue(source, target)
    put(emergency, source, target, Selection(("db0",)))
    gone = backup.table().from_pylist(added, schema=backup.table().schema)
    assert target.remove(spec, gone) == len(added)
    target.check_unwritten()
    target.commit()
    target.abort()
    assert live("GET", "later") == b"stays"
    live("DEL", "later")
    assert live.digest() == before


@pytest.mark.one_redis
def test_databases_that_a_restore_created_are_emptied_by_its_undo(live: RedisServer) -> None:
    live("SET", "a", 1)
    live("SET", "b", 2, db=3)
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("DEL", "b", db=3)
    selection = Selection(("db3",))
    emergency, _ = restore(backup, source, EXACT, selection)
    assert live("GET", "b", db=3) == b"2"
    assert "db3" not in emergency.specs
    undo(emergency, source, selection, created=("db3",))
    assert live("DBSIZE", db=3) == 0
    assert live("GET", "a") == b"1"


@pytest.mark.one_redis
@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"patterns": ["*"]}, {"patterns": ["position:*"]}),
        ({"patterns": ["position:*"]}, {"patterns": ["*"]}),
        ({"patterns": ["position:*", "order:*"]}, {"patterns": ["order:*", "price:*"]}),
        ({}, {"databases": [0]}),
        ({"databases": [0]}, {}),
        ({"databases": [0, 3]}, {"databases": [0, 7]}),
        ({"patterns": ["position:*"], "databases": [3]}, {}),
    ],
)
def test_only_what_plan_and_backup_cover_is_written_or_removed(
    live: RedisServer, then: dict[str, object], now: dict[str, object]
) -> None:
    names = [f"{kind}:{n}" for kind in ("position", "order", "price") for n in range(3)]
    for db in (0, 3, 7):
        live.many([("SET", name, "old") for name in names[:-1]], db=db)
    was, plan = RedisSource(url=live.url, **then), RedisSource(url=live.url, **now)  # type: ignore[arg-type]
    backup = read_all(was)
    for db in (0, 3, 7):
        live.many([("SET", name, "new") for name in names] + [("SET", f"{name}:since", "new") for name in names], db=db)
    both = set(state(was)) & set(state(plan))
    before = {(db, key): live("GET", key, db=db) for db in (0, 3, 7) for key in live("KEYS", "*", db=db)}  # type: ignore
    emergency, _ = restore(backup, plan)
    for (db, key), value in before.items():
        within = f"db{db}" in both and all(
            "*" in source.patterns or key.decode().partition(":")[0] + ":*" in source.patterns for source in (was, plan)
        )
        plain = key.decode() in names[:-1]
        assert live("GET", key, db=db) == ((b"old" if plain else None) if within else value), (db, key)
        # what plan covers now, and the backup did not, stays; what is touched is in the emergency backup
        if within:
            assert key in emergency.keys(f"db{db}")


@pytest.mark.one_redis
def test_renumbered_databases_are_covered_by_their_names_in_backups(live: RedisServer) -> None:
    live("SET", "a", "old", db=2)
    backup = read_all(RedisSource(url=live.url, databases=[2]))
    live.many([("SET", "a", "x"), ("SET", "b", "x")], db=5)
    live("SET", "a", "other", db=2)
    source = RedisSource(url=live.url, databases=[2], renumbered={2: 5})
    restore(backup, source)
    assert live("KEYS", "*", db=5) == [b"a"]
    assert (live("GET", "a", db=5), live("GET", "a", db=2)) == (b"old", b"other")


@pytest.mark.parametrize(
    "write",
    [
        ("SET", "k1", "late"), ("DEL", "k1"), ("APPEND", "k1", "x"), ("PEXPIREAT", "k1", FAR_MS), ("SET", "came", 1),
        ("HSET", "h", "f5", "late"), ("RENAME", "k1", "k9"), ("RPUSH", "l", "late"), ("HDEL", "h", "f1"), ("FLUSHALL",),
        ("XADD", "x", "*", "a", "late"), ("ZADD", "z", 3, "a"), ("PERSIST", "goes"),
    ],
)  # fmt: skip
def test_what_was_written_since_the_emergency_view_stops_the_restore(
    live: RedisServer, write: tuple[str | int, ...]
) -> None:
    fields = [word for n in range(1500) for word in (f"f{n}", n)]
    live.many(
        [("SET", f"k{n}", n) for n in range(50)] + [("HSET", "h", *fields), ("RPUSH", "l", "a"), ("ZADD", "z", 1, "a")]
    )
    live.many([("XADD", "x", "1-1", "a", "b"), ("SET", "goes", 1, "PXAT", FAR_MS)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("SET", "k1", "changed")
    live("CLIENT", "SETNAME", "the-writer")

    def late() -> None:
        live(*write)

    with pytest.raises(RestoreRefused) as caught:
        restore(backup, source, meanwhile=late)
    assert str(write[1] if len(write) > 1 else "k0") in caught.value.message
    assert "the-writer" in caught.value.message
    assert write[0] == "FLUSHALL" or live("GET", "k2") == b"2"
    assert not live("KEYS", TEMPORARY + b"*")


@pytest.mark.one_redis
def test_what_the_restore_does_not_touch_may_be_written_meanwhile(live: RedisServer) -> None:
    live.many([("SET", "a:1", 1), ("SET", "b:1", 1)])
    source = RedisSource(url=live.url)
    backup = read_all(source)

    def late() -> None:
        live.many([("SET", "b:1", 2), ("SET", "b:2", 2)])
        live("SET", "far", 1, db=4)

    restore(backup, source, selection=Selection((), ("a:*",)), meanwhile=late)
    restore(backup, source, MERGE, Selection((), ("a:*",)), meanwhile=lambda: live("SET", "a:2", "stays"))
    assert live("MGET", "b:1", "b:2", "a:2") == [b"2", b"2", b"stays"]


def test_keys_and_fields_that_expire_meanwhile_do_not_stop_it(live: RedisServer) -> None:
    live.many([("SET", "stays", 1), ("SET", "soon", "x"), ("RPUSH", "l", "x"), ("HSET", "h", "a", 1, "b", 2)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("PEXPIRE", "soon", 400), ("SET", "new", 1, "PX", 400), ("PEXPIRE", "l", 400)])
    fields = b"hpexpire" in list(live("COMMAND", "LIST"))  # type: ignore[union-attr]
    if fields:
        live("HPEXPIRE", "h", 400, "FIELDS", 1, "a")
        live.many([("HSET", "whole", "f", 1), ("HPEXPIRE", "whole", 400, "FIELDS", 1, "f")])

    def wait() -> None:
        while live("EXISTS", "soon", "new", "l", "whole") or (fields and live("HLEN", "h") == 2):
            pass

    restore(backup, source, meanwhile=wait)
    assert live("MGET", "stays", "soon") == [b"1", b"x"]
    assert live("HGETALL", "h") == [b"a", b"1", b"b", b"2"]


@pytest.mark.one_redis
@pytest.mark.parametrize("existing", [True, False])
def test_what_is_written_between_the_check_and_the_swap_is_kept_and_named(live: RedisServer, existing: bool) -> None:
    live.many([("SET", "k", "old"), ("SET", "other", 1)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    if not existing:
        live("DEL", "k")
    wrote = []

    def look(data: bytes) -> None:
        if b"RENAME" in data and b":old:k" in data and b"\r\nold\r\n" in data and not wrote:
            wrote.append(live("SET", "k", "acknowledged"))

    with proxied(live.port, look) as proxy, pytest.raises(Partial, match="b'k'") as caught:
        restore(backup, source.model_copy(update={"url": proxy.url}))
    assert wrote == [b"OK"]
    [aside] = live("KEYS", ASIDE + b"*")  # type: ignore[misc]
    assert aside.decode() in caught.value.message
    assert live("MGET", aside, "k", "other") == [b"acknowledged", b"old", b"1"]
    assert not live("KEYS", TEMPORARY + b"*")
    assert read_all(source).keys() == {b"k", b"other"}


@pytest.mark.one_redis
def test_a_key_that_comes_while_others_are_removed_is_left_alone_and_named(live: RedisServer) -> None:
    live("SET", "k", "old")
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("SET", "goes", 1)
    wrote = []

    def look(data: bytes) -> None:
        if b"RENAME" in data and b":old:k" in data and b"\r\nold\r\n" in data and not wrote:
            wrote.append(live("SET", "came", "acknowledged"))

    with proxied(live.port, look) as proxy, pytest.raises(Partial, match="b'came'"):
        restore(backup, source.model_copy(update={"url": proxy.url}))
    assert live("MGET", "came", "goes", "k") == [b"acknowledged", None, b"old"]


@pytest.mark.parametrize("tracked", [True, False])
def test_of_keys_that_the_view_did_not_read_the_history_tells(live: RedisServer, tracked: bool) -> None:
    live.many([("SET", "a", 1), ("SET", "b", 1)])
    source = RedisSource(url=live.url, track_changes=tracked)
    backup = read_all(source.model_copy(update={"track_changes": False}))
    selection = Selection((), ("a",))
    for write, match in ((("SET", "b", 2), None), (("SET", "a", 2), "b'a' was written since")):
        target = source.target(scope_of(backup, source, EXACT, selection))
        with source.salvage() as view:
            target.guard(view)
        put(backup, source, target, selection)
        live(*write)
        if tracked and match is None:
            target.check_unwritten()
        else:
            with pytest.raises(RestoreRefused, match=match if tracked else "does not report"):
                target.check_unwritten()
        target.abort()


@pytest.mark.parametrize("consistent", [True, False])
def test_an_ordinary_view_guards_as_well(live: RedisServer, consistent: bool) -> None:
    fill_gallery(live)
    source = RedisSource(url=live.url, consistent=consistent)
    backup = read_all(source)
    for late in (False, True):
        target = source.target(scope_of(backup, source))
        with source.view() as view:
            target.guard(view)
            read_view(view)
        put(backup, source, target)
        if late:
            live("SADD", "s:wide", "late")
            with pytest.raises(RestoreRefused, match="s:wide"):
                target.check_unwritten()
        else:
            target.check_unwritten()
            target.commit()
        target.abort()
