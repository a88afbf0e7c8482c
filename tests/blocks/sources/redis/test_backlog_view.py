"""`consistent` incrementals: a moment that is reached from the base's by the server's history, without its dataset."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import SourceChanged
from blocks.records import BackupType
from blocks.sources.reading import Unchanged
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Connection, Word
from blocks.sources.redis.views import backlog_view, view_factory
from blocks.sources.redis.views.snapshot_view import SnapshotReader
from blocks.sources.redis.views.view_factory import ViewFactory
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, changes, fill_gallery, plan_of
from tests.blocks.sources.redis.newer import newer_redis

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remembers each dataset that is taken."""
    taken: list[str] = []
    whole = SnapshotReader.read

    def counted(self: SnapshotReader, *args: Any) -> Any:
        taken.append("dataset")
        return whole(self, *args)

    monkeypatch.setattr(SnapshotReader, "read", counted)
    return taken


def consistent(live: RedisServer, **how: object) -> RedisSource:
    return RedisSource.model_validate({"url": live.url, "consistent": True, "server_program": live.program} | how)


def now(live: RedisServer, **how: object) -> list[dict[str, object]]:
    return all_rows(RedisSource.model_validate({"url": live.url} | how))


def between_rounds(monkeypatch: pytest.MonkeyPatch, do: Callable[[int], None]) -> None:
    """Do something after the keys of each round were read, with the number of the round."""
    read, rounds = backlog_view._read, iter(range(1_000_000))

    def interrupted(*args: Any) -> Any:
        done = read(*args)
        do(next(rounds))
        return done

    monkeypatch.setattr(backlog_view, "_read", interrupted)


def test_what_changed_is_read_without_a_dataset(live: RedisServer, datasets: list[str]) -> None:
    fill_gallery(live)
    chain = KeptChain(consistent(live))
    assert datasets == ["dataset"]
    wide = [word for n in range(2_000) for word in (f"field{n}", n)]
    live.many([("DEL", "h:wide"), ("HSET", "h", *wide), ("LTRIM", "l:wide", 0, 3), ("DEL", "s:wide"), ("DEL", "x")])
    live("XTRIM", "x:wide", "MAXLEN", "=", 100, db=3)
    assert chain.incremental()
    assert chain.rows() == now(live)
    live("SET", "s:wide", "another type")
    assert chain.incremental()
    assert sum(isinstance(reading, Unchanged) for reading in chain.readings) == len(chain.parts) - 1 > 0
    assert chain.incremental()
    assert chain.read_rows == 0
    assert datasets == ["dataset"]
    assert chain.rows() == now(live)


def test_large_and_small_keys_are_read_some_at_a_time(
    live: RedisServer, datasets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog_view, "_FIRST", 3)
    live("CONFIG", "SET", "repl-backlog-size", "64mb")
    monkeypatch.setattr(backlog_view, "_WANTED_BYTES", 50_000)
    for db in (0, 3, 9):
        live("SET", "rests", "x", db=db)
        live.many([("SET", f"k{n}", "base") for n in range(700)], db=db)
    chain = KeptChain(consistent(live))
    fill_gallery(live)
    live.many([("SET", f"k{n}", "y" * (n % 5_000)) for n in range(0, 700, 2)])
    read, sizes = Server.read, list[int]()

    def counted(self: Server, database: int, keys: pa.LargeBinaryArray, *rest: Any) -> Any:
        sizes.append(len(keys))
        return read(self, database, keys, *rest)

    monkeypatch.setattr(Server, "read", counted)
    assert chain.incremental()
    assert sizes[0] == 3
    assert any(later < earlier for earlier, later in itertools.pairwise(sizes))
    assert max(sizes) > 40
    assert datasets == ["dataset"]
    assert chain.rows() == now(live)


def test_what_is_written_meanwhile_is_read_again(
    live: RedisServer, datasets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live.many([("SET", f"k{n}", "base") for n in range(3_000)])
    chain = KeptChain(consistent(live, part_size_bytes=50_000))
    live.many([("SET", f"k{n}", "changed") for n in range(50)])

    def write(number: int) -> None:
        if number < 3:
            live.many([("SET", "k7", f"round {number}"), ("SET", f"new{number}", "x"), ("DEL", f"k{40 + number}")])
            live("RPUSH", f"k{2_000 + number}:list", *range(200))
        elif number == 3:
            live("SET", "k7", "the last", db=5)  # is not one of the chosen databases

    between_rounds(monkeypatch, write)
    chain.source = consistent(live, part_size_bytes=50_000, databases=[0])
    assert chain.incremental()
    assert len(datasets) == 1
    assert chain.rows() == now(live, databases=[0])
    assert {row["value"] for row in chain.rows() if row["key"] == b"k7"} == {b"round 2"}


def test_a_server_that_never_rests_gives_its_dataset(
    live: RedisServer, datasets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live.many([("SET", f"k{n}", "base") for n in range(3_000)])
    chain = KeptChain(consistent(live))
    live("SET", "k1", "changed")
    monkeypatch.setattr(backlog_view, "_PATIENCE_SECONDS", 0.2)
    between_rounds(monkeypatch, lambda number: live.many([("SET", "k2", number)]))
    assert not chain.incremental()
    assert datasets == ["dataset", "dataset"]
    assert chain.rows() == now(live)


def test_a_hash_that_cannot_be_read_at_rest_is_read_from_the_dataset(
    datasets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = RedisServer(tmp_path / "live", program=newer_redis())
    live.many([("SET", f"k{n}", n) for n in range(3_000)])
    live.many([("HSET", "hot", "f", 0), ("HSET", "goes", "f", 0), ("HPEXPIREAT", "goes", FAR_MS, "FIELDS", 1, "f")])
    chain = KeptChain(consistent(live))
    live("HSET", "hot", "f", 1)
    transaction, numbers = Connection.transaction, itertools.count()

    def busy(self: Connection, commands: Sequence[bytes]) -> Any:
        live("HSET", "hot", f"f{next(numbers)}", "x")
        return transaction(self, commands)

    monkeypatch.setattr(Connection, "transaction", busy)
    assert not chain.incremental()
    assert datasets == ["dataset", "dataset"]
    monkeypatch.undo()
    assert chain.rows() == now(live)
    live.kill()


def test_a_database_that_comes_meanwhile_is_in_the_moment(
    live: RedisServer, datasets: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live.many([("SET", f"k{n}", "base") for n in range(300)])
    plan = plan_of(tmp_path, consistent(live))
    make_backup(plan, FULL)
    live("SET", "k1", "changed")
    between_rounds(monkeypatch, lambda number: live.many([("SET", "k2", number)], db=4) if not number else None)
    made = make_backup(plan, INCREMENTAL)
    assert made.backup_type is FULL
    assert [c.name for c in made.collections] == ["cache/db0", "cache/db4"]
    assert len(datasets) == 2


def test_a_key_that_is_in_another_database_for_a_while_is_not_lost(
    live: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.many([("SET", f"k{n}", "base") for n in range(300)])
    chain = KeptChain(consistent(live))
    live("SET", "k1", "changed")
    reach = view_factory.reach_snapshot

    def then_back(*args: Any) -> Any:
        reached = reach(*args)
        live("MOVE", "k2", 0, db=4)
        return reached

    between_rounds(monkeypatch, lambda number: live.many([("MOVE", "k2", 4)]) if not number else None)
    monkeypatch.setattr(view_factory, "reach_snapshot", then_back)
    chain.incremental()
    assert len(chain.rows()) == 300
    assert chain.rows() == now(live)


@pytest.mark.parametrize("words", [("MOVE", "k2", 4), ("MOVE", "k3", 0)])
def test_databases_that_come_or_go_before_the_whole_is_taken_are_said(
    live: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[Word, ...]
) -> None:
    live.many([("SET", f"k{n}", "base") for n in (1, 2)])
    live("SET", "k3", "base", db=3)
    live("SET", "k5", "base", db=5)
    plan = plan_of(tmp_path, consistent(live))
    make_backup(plan, FULL)
    live("DEL", "k5", db=5)  # so that all is read
    whole, before = backlog_view.BacklogView._whole, 3 if words[1] == "k3" else 0

    def late(self: backlog_view.BacklogView) -> object:
        if live("EXISTS", words[1], db=before):
            live(*words, db=before)
        return whole(self)

    monkeypatch.setattr(backlog_view.BacklogView, "_whole", late)
    with pytest.raises(SourceChanged, match="databases came or went"):
        make_backup(plan, INCREMENTAL)
    assert make_backup(plan, INCREMENTAL).rows == 3


def test_a_differential_and_a_full_are_of_a_dataset(live: RedisServer, datasets: list[str], tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, consistent(live))
    make_backup(plan, FULL)
    live("SET", "one", 1)
    assert changes(make_backup(plan, BackupType.DIFFERENTIAL)) == (1, 0)
    assert len(datasets) == 2
    live("SET", "two", 2)
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)
    assert len(datasets) == 2


def test_either_way_of_looking_goes_on_with_the_chain_of_the_other(
    live: RedisServer, datasets: list[str], tmp_path: Path
) -> None:
    fill_gallery(live)
    still = consistent(live, patterns=["*:wide", "text"])
    moving = still.model_copy(update={"consistent": False})
    plan = plan_of(tmp_path, still)
    made = [make_backup(plan, FULL)]
    for number, source in enumerate((moving, still, moving)):
        live.many([("HSET", "h:wide", f"field{number}", "other"), ("SET", "outside", number)])
        made.append(make_backup(plan.model_copy(update={"sources": {"cache": source}}), INCREMENTAL))
        assert changes(made[-1]) == (1, 0)
    assert len(datasets) == 1
    assert len({backup.sources[0].token for backup in made}) == 4


@pytest.mark.parametrize("rights", [["+info", "+replconf", "+psync", "+command|info"], ["~*", "+@all", "-scan"]])
def test_a_user_who_may_only_take_datasets_makes_incrementals(
    live: RedisServer, datasets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: list[str]
) -> None:
    live("ACL", "SETUSER", "taker", "on", ">secret", *rights)
    monkeypatch.setenv("TAKER", "secret")
    live.many([("SET", f"k{n}", n) for n in range(300)])
    plan = plan_of(tmp_path, consistent(live, user="taker", password_env="TAKER"))
    make_backup(plan, FULL)
    live("SET", "k7", "changed")
    made = make_backup(plan, INCREMENTAL)
    assert (made.backup_type, changes(made)) == (INCREMENTAL, (1, 0))
    assert len(datasets) == 2


def test_a_part_that_has_outgrown_its_bounds_ends_the_chain(
    live: RedisServer, datasets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.many([("SET", f"k{n}", "x" * 100) for n in range(300)])
    plan = plan_of(tmp_path, consistent(live, part_size_bytes=20_000))
    full = make_backup(plan, FULL)
    live.many([("SET", f"more{n}", "x" * 400) for n in range(900)])
    take, before = ViewFactory.snapshot_view, datetime.max.replace(tzinfo=UTC)

    def late(*args: Any) -> Any:
        nonlocal before
        before = datetime.now(UTC)
        return take(*args)

    monkeypatch.setattr(ViewFactory, "snapshot_view", late)
    made = make_backup(plan, INCREMENTAL)
    assert made.backup_type is FULL
    assert "outgrown" in (made.promoted_because or "")
    assert len(made.collections[0].parts) > len(full.collections[0].parts)
    assert made.rows == 1_200
    assert len(datasets) == 2
    assert made.sources[0].taken_at > before
    live("SET", "one", 1)
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)
    assert len(datasets) == 2


def test_a_key_that_is_larger_than_parts_is_no_reason_to_take_a_dataset(live: RedisServer, datasets: list[str]) -> None:
    live.many([("HSET", "giant", *[w for n in range(start, start + 5_000) for w in (f"f{n}", "x" * 50)])
               for start in range(0, 20_000, 5_000)])  # fmt: skip
    live.many([("SET", f"k{n}", n) for n in range(100)])
    chain = KeptChain(consistent(live, part_size_bytes=100_000))
    live.many([("HSET", "giant", "f7", "changed"), ("SET", "k1", "changed")])
    assert chain.incremental()
    assert datasets == ["dataset"]
    assert chain.rows() == now(live)


def test_moments_hold_transactions_whole_while_they_go_on(live: RedisServer, tmp_path: Path) -> None:
    """A writer moves amounts between accounts; in each moment the sum is the same."""
    accounts = 400
    live.many([("SET", f"account:{n}", 100) for n in range(accounts)])
    plan = plan_of(tmp_path, consistent(live))
    made = [make_backup(plan, FULL)]
    ended = threading.Event()

    def transfer() -> None:
        number = 0
        while not ended.is_set():
            one, other = number * 7 % accounts, (number * 13 + 1) % accounts
            live.many([("MULTI",), ("DECRBY", f"account:{one}", 3), ("INCRBY", f"account:{other}", 3), ("EXEC",)])
            number += 1
            time.sleep(0.004)

    writer = threading.Thread(target=transfer)
    writer.start()
    try:
        made += [make_backup(plan, INCREMENTAL) for _ in range(6)]
    finally:
        ended.set()
        writer.join()
    for n, backup in enumerate(made):
        place = RedisServer(tmp_path / f"copy{n}", program=live.program)
        make_restore(plan, RestoreRequest(backup.backup_id, mode=RestoreMode.EXACT, to=place.url))
        values = [int(place("GET", f"account:{number}")) for number in range(accounts)]  # type: ignore[arg-type]
        place.kill()
        assert sum(values) == 100 * accounts


def test_without_tracking_every_backup_takes_the_dataset(
    live: RedisServer, datasets: list[str], tmp_path: Path
) -> None:
    live("SET", "a", 1)
    plan = plan_of(tmp_path, consistent(live, track_changes=False))
    made = [make_backup(plan, kind) for kind in (FULL, INCREMENTAL)]
    assert [backup.sources[0].token for backup in made] == [None, None]
    assert len(datasets) == 2


def test_a_position_before_that_of_the_base_is_not_asked_for(live: RedisServer, datasets: list[str]) -> None:
    """As a replica has it that lags behind the master the base was read from."""
    live.many([("SET", f"k{n}", n) for n in range(30)])
    chain = KeptChain(consistent(live))
    assert chain.token is not None
    replication_id, _, offset = chain.token.partition(":")
    chain.token = f"{replication_id}:{int(offset) + 10}"
    assert not chain.incremental()
    assert len(datasets) == 2
