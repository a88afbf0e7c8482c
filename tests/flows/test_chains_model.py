"""Whole chains against a plain dictionary: random changes, backups of any type, retention, damage and restores.

The model keeps, for each backup, the exact picture of the state at its moment. Whatever happened since, a restore of
any backup that retention kept brings that picture back.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blocks.errors import RestoreRefused
from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata, BackupType
from blocks.repository.verdict import Verdict
from blocks.sources.collection import REPARTITION_FACTOR
from blocks.verification import Axis
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.blocks.plan.test_retention import slowly_kept, verdict
from tests.flows.flow_support import (
    CORRUPTED,
    DIFFERENTIAL,
    EMERGENCY,
    FULL,
    INCREMENTAL,
    MERGE,
    VERIFIED,
    Picture,
    Shop,
    picture,
)

DAY = timedelta(days=1)
PART_BYTES = 300
TABLES = {
    "numbers": "(id INTEGER PRIMARY KEY, a, b)",
    "words": "(k TEXT PRIMARY KEY, a, b)",
    "pairs": "(x, y, a, b, PRIMARY KEY (x, y)) WITHOUT ROWID",
    "heap": "(a, b)",
    # the same tables with another key, as a migration leaves them
    "numbers2": "(id TEXT PRIMARY KEY, a, b)",
    "words2": "(k TEXT, a, b, PRIMARY KEY (k, a))",
    "pairs2": "(x, y, a, b, PRIMARY KEY (y, x)) WITHOUT ROWID",
    "heap2": "(a, b, PRIMARY KEY (b))",
}
names = st.sampled_from(["numbers", "words", "pairs", "heap"])
few = st.integers(0, 12)
values = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, width=16),
    st.text("aé\n'", max_size=40),
    st.binary(max_size=40),
)
paths = st.sampled_from(["a", "b", "d", "d/a", "d/e/f", "ü"])
contents = st.one_of(
    st.binary(max_size=6), st.integers(1, 3).map(lambda n: bytes([n]) * 1_500_000), st.just(b"\0" * 1_200_000)
)


@dataclass
class Kept:
    """What the model knows of one committed backup."""

    made: BackupMetadata
    state: Picture
    shape: Any
    chain: list[str]

    @property
    def all_of_it(self) -> bool:
        """Whether it holds all of the state: one made before a restore of a part holds that part."""
        return self.made.whole


class Chains(RuleBasedStateMachine):
    encrypted = True

    @initialize(wal=st.booleans(), rows=st.integers(0, 60))
    def begin(self, wal: bool, rows: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chains-"))
        self.shop = Shop(self.folder, self.encrypted, part_size_bytes=PART_BYTES, allow_empty=True)
        self.kept: dict[str, Kept] = {}
        self.damaged: set[str] = set()
        self.failed: set[str] = set()
        self.proved: dict[str, Verdict] = {}
        if wal:
            self.shop.db.execute("PRAGMA journal_mode = WAL")
        for name in ("numbers", "words", "pairs", "heap"):
            self._create(name)
            for n in range(rows if name != "heap" else rows // 2):
                self._put(name, n, "x" * (n % 30), n)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.shop.db.close()
            shutil.rmtree(self.folder)

    # The application

    def _create(self, name: str, shape: str | None = None) -> None:
        self.shop.db.execute(f"CREATE TABLE {name} {TABLES[shape or name]}")

    def _columns(self, name: str) -> list[str]:
        return [row[1] for row in self.shop.rows(f"PRAGMA table_info({name})")]

    def _put(self, name: str, n: int, a: object, b: object) -> None:
        columns = self._columns(name)
        if not columns:
            return
        keys = {"id": n, "k": f"k{n}", "x": n % 4, "y": f"y{n}"}
        row = {c: keys.get(c, a if c == "a" else b) for c in columns}
        marks = ", ".join("?" * len(row))
        self.shop.db.execute(f"INSERT OR REPLACE INTO {name} VALUES ({marks})", list(row.values()))

    @rule(name=names, n=few, a=values, b=values)
    def put_a_row(self, name: str, n: int, a: object, b: object) -> None:
        self._put(name, n, a, b)

    @rule(name=names, first=few, a=values)
    def put_many_rows(self, name: str, first: int, a: object) -> None:
        for n in range(first * 10, first * 10 + 20):
            self._put(name, n, a, n)

    @rule(name=names, modulus=st.integers(1, 4))
    def delete_rows(self, name: str, modulus: int) -> None:
        if columns := self._columns(name):
            self.shop.db.execute(f"DELETE FROM {name} WHERE length({columns[0]}) * 7 % 4 < ? ", (modulus,))

    @rule(name=names, b=values)
    def update_rows(self, name: str, b: object) -> None:
        if columns := self._columns(name):
            self.shop.db.execute(f"UPDATE OR IGNORE {name} SET b = ? WHERE length({columns[0]}) % 2 = 1", (b,))

    @rule(k=st.sampled_from([None, "k1"]))
    def put_a_null_key(self, k: str | None) -> None:
        if self._columns("words"):
            rest = ", NULL" * (len(self._columns("words")) - 1)
            self.shop.db.execute(f"INSERT OR REPLACE INTO words VALUES (?{rest})", (k,))

    @rule(name=names)
    def add_a_column(self, name: str) -> None:
        columns = self._columns(name)
        if columns and len(columns) < 6:
            self.shop.db.execute(f"ALTER TABLE {name} ADD COLUMN c{len(columns)} TEXT")

    @rule(name=names)
    def drop_or_make_a_table(self, name: str) -> None:
        if self._columns(name):
            self.shop.db.execute(f"DROP TABLE {name}")
        else:
            self._create(name)

    @rule(name=names)
    def change_the_key_of_a_table(self, name: str) -> None:
        if not self._columns(name):
            return
        (sql,) = self.shop.rows(f"SELECT sql FROM sqlite_schema WHERE name = '{name}'")[0]
        shape = name if TABLES[f"{name}2"] in sql else f"{name}2"
        db = self.shop.db
        db.execute(f"ALTER TABLE {name} RENAME TO old")
        self._create(name, shape)
        columns = ", ".join(self._columns(name))
        db.execute(f"INSERT OR IGNORE INTO {name} ({columns}) SELECT {columns} FROM old")
        db.execute("DROP TABLE old")

    @rule(path=paths, content=contents)
    def write_a_file(self, path: str, content: bytes) -> None:
        file = self.shop.tree / path
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        for parent in reversed(file.relative_to(self.shop.tree).parents):
            above = self.shop.tree / parent
            if above.is_symlink() or not above.is_dir():
                above.unlink(missing_ok=True)
                above.mkdir()
        file.unlink(missing_ok=True) if file.is_symlink() else None
        file.write_bytes(content)

    @rule(path=paths)
    def change_a_file_behind_its_times(self, path: str) -> None:
        file = self.shop.tree / path
        if file.is_file() and not file.is_symlink() and (old := file.read_bytes()):
            times = file.stat().st_mtime_ns
            file.write_bytes(bytes([old[0] ^ 1]) + old[1:])
            os.utime(file, ns=(times, times))

    @rule(path=paths)
    def remove_a_path(self, path: str) -> None:
        file = self.shop.tree / path
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        elif os.path.lexists(file):
            file.unlink()

    @rule(path=paths)
    def put_a_link(self, path: str) -> None:
        if not os.path.lexists(self.shop.tree / path) and (self.shop.tree / path).parent.is_dir():
            (self.shop.tree / path).symlink_to("../nowhere")

    @rule()
    def let_time_pass(self) -> None:
        self.shop.age_database()

    # What is done about it

    def _shape(self) -> Any:
        """Return what rows of two backups must have in common to stand side by side."""
        found = {}
        for name, sql in self.shop.rows("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"):
            info = self.shop.rows(f"SELECT name, type, pk FROM pragma_table_info('{name}')")
            keyed = [c for c, _, pk in info if pk]
            test = " OR ".join(f"{c} IS NULL" for c in keyed)
            null = bool(keyed) and bool(self.shop.rows(f"SELECT 1 FROM {name} WHERE {test} LIMIT 1"))
            # where a key holds a NULL the rowid identifies rows, as it does without a key
            key = [(c, t, 0 if null else pk) for c, t, pk in info]
            found[name] = (key, null, "WITHOUT ROWID" in sql)
        return found

    def _usable(self, kept: Kept) -> bool:
        return not (self.damaged | self.failed).intersection(kept.chain) and kept.shape == self._shape()

    def _base(self, kind: BackupType) -> Kept | None:
        wanted = {DIFFERENTIAL: [FULL], INCREMENTAL: [FULL, DIFFERENTIAL, INCREMENTAL]}.get(kind, [])
        candidates = [k for k in self.kept.values() if k.made.backup_type in wanted]
        return candidates[-1] if candidates and self._usable(candidates[-1]) else None

    @property
    def whole(self) -> list[Kept]:
        kept = getattr(self, "kept", {}).values()
        return [one for one in kept if one.all_of_it and not self.damaged.intersection(one.chain)]

    def _remember(self, made: BackupMetadata, state: Picture, shape: Any, base: Kept | None) -> None:
        self.kept[made.backup_id] = Kept(made, state, shape, [*(base.chain if base else []), made.backup_id])

    @rule(kind=st.sampled_from([*BackupType, INCREMENTAL, INCREMENTAL, DIFFERENTIAL]), age=st.booleans())
    def back_up(self, kind: BackupType, age: bool) -> None:
        if age:
            self.shop.age_database()
        state, shape, base = self.shop.picture(), self._shape(), self._base(kind)
        made = self.shop.back_up(kind)
        base = self._unless_outgrown(made, base)
        promoted = kind.needs_base and base is None
        assert (made.promoted_because is not None) == promoted
        assert made.requested_type is kind
        assert made.backup_type is (FULL if promoted else kind)
        assert made.base == (base.made.backup_id if base else None)
        assert [link.backup_id for link in made.chain] == (base.chain if base else [])
        assert made.rows == sum(map(len, state["rows"].values())) + made.collections[-1].rows
        self._remember(made, state, shape, base)

    def _unless_outgrown(self, made: BackupMetadata, base: Kept | None) -> Kept | None:
        """Return the base, but None where a part that the chain set has become too large, and really has."""
        limit = REPARTITION_FACTOR * PART_BYTES
        grown = re.fullmatch("a part of (.*) has outgrown its bounds", made.promoted_because or "")
        if grown and base is not None:
            rows = next(c for c in made.collections if c.name == grown[1])
            at_most = rows.rows * len(rows.columns) * 48
            if grown[1] == "models/tree":
                limit, at_most = (
                    REPARTITION_FACTOR << 20,
                    sum(p.stat().st_size for p in self.shop.tree.rglob("*") if p.is_file()),
                )
            assert at_most > limit
            return None
        for collection in made.collections[:-1] if base else ():
            assert collection.parts[-1].rows * len(collection.columns) * 8 <= limit
        return base

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def restore_elsewhere(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(self.whole))
        with tempfile.TemporaryDirectory(prefix="chains-to-") as place:
            if kept.made.data_sources == ("ledger",):  # from before a merge, which wrote to nothing else
                self.shop.restore(kept.made, to=f"{place}/ledger.db")
                restored = picture(Path(place, "ledger.db"), self.shop.tree)
                assert restored | {"tree": None} == kept.state | {"tree": None}
                return
            self.shop.restore(kept.made, to=place)
            assert picture(Path(place, "ledger", "ledger.db"), Path(place, "models", "tree")) == kept.state

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def restore_in_place_and_maybe_undo(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(self.whole))
        before, shape = self.shop.picture(), self._shape()
        result = self.shop.restore(kept.made)
        untouched = {} if "models" in kept.made.data_sources else {"tree": before["tree"]}
        assert self.shop.picture() == kept.state | untouched
        assert result.rescue_id is not None
        rescue = self.shop.repository.manifest("trading", result.rescue_id)
        assert rescue.backup_type is EMERGENCY
        self._remember(rescue, before, shape, None)
        if data.draw(st.booleans()):
            now, shape = self.shop.picture(), self._shape()
            undone = self.shop.restore(result.rescue_id)
            assert self.shop.picture() == before
            self._remember(self.shop.repository.manifest("trading", undone.rescue_id or ""), now, shape, None)

    @precondition(lambda self: self.whole)
    @rule(data=st.data())
    def merge_one_table(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(self.whole))
        tables = sorted(kept.state["rows"].keys())
        if not tables:
            return
        name = data.draw(st.sampled_from(tables))
        here, there = self._shape().get(name), kept.shape[name]
        before, shape = self.shop.picture(), self._shape()
        if here is not None and [(c, t) for c, t, _ in here[0]] != [(c, t) for c, t, _ in there[0]]:
            with pytest.raises(RestoreRefused):
                self.shop.restore(kept.made, MERGE, [f"ledger/{name}"])
            assert self.shop.picture() == before
            return
        if here is not None and here != there:
            return  # the same columns under another key: what a merge means then is not for this model to say
        result = self.shop.restore(kept.made, MERGE, [f"ledger/{name}"])
        rescue = self.shop.repository.manifest("trading", result.rescue_id or "")
        self._remember(rescue, before, shape, None)
        after = self.shop.picture()
        columns = [c for c, _, pk in there[0]]
        keyed = [] if there[1] else [columns.index(c) + 1 for c, _, pk in there[0] if pk]

        def rows(state: Picture) -> dict[Any, Any]:
            # without a key the rowid is it; with one the rowid only serves the order
            return {repr([row[i] for i in keyed or [0]]): repr(row[1:]) for row in state["rows"].get(name, [])}

        if keyed:
            assert rows(after) == rows(before) | rows(kept.state)
        else:  # rows are what they hold, each as often as on the side that has it more often
            counted = [Counter(repr(row[1:]) for row in s["rows"].get(name, [])) for s in (before, kept.state, after)]
            assert counted[2] == counted[0] | counted[1]
        others = [{t: r for t, r in s["rows"].items() if t != name} for s in (before, after)]
        assert others[0] == others[1]
        assert after["tree"] == before["tree"]

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), limits=st.lists(st.integers(1, 2), min_size=5, max_size=5), keep=st.integers(1, 2))
    def apply_retention(self, data: st.DataObject, limits: list[int], keep: int) -> None:
        fields = {kind.value: n * DAY for kind, n in zip(BackupType, limits, strict=True)}
        plan = self.shop.plan.model_copy(update={"retention": RetentionPolicy(**fields, keep_last=keep)})
        edge = data.draw(st.sampled_from(list(self.kept.values())))
        now = edge.made.timestamp + data.draw(st.integers(0, 2)) * DAY
        stays = slowly_kept([k.made for k in self.kept.values()], plan.retention, self.verdicts(), frozenset(), now)
        dry = apply_retention(plan, dry_run=True, now=now)
        assert self.shop.ids == list(self.kept)
        result = apply_retention(plan, now=now, accept_clock=True)
        assert result.decisions == dry.decisions
        assert {d.backup_id for d in result.removed} == set(self.kept) - stays
        self.kept = {i: k for i, k in self.kept.items() if i in stays}

    def verdicts(self) -> dict[str, Verdict | None]:
        """Return what is known of each backup by its verifications, and whether it has lost something since."""
        below = [i for i, k in self.kept.items() if self.failed.intersection(k.chain)]
        lacking = dict[str, Verdict | None].fromkeys(self.damaged)
        return (
            self.proved
            | dict.fromkeys(below, verdict(bad="b"))
            | lacking
            | dict.fromkeys(self.failed, verdict(bad="b"))
        )

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def lose_an_object(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(list(self.kept.values())))
        if objects := sorted(self.shop.objects(kept.made).glob("*.pack")):
            data.draw(st.sampled_from(objects)).unlink()
            self.damaged.add(kept.made.backup_id)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def verify(self, data: st.DataObject) -> None:
        kept = data.draw(st.sampled_from(list(self.kept.values())))
        deep = data.draw(st.booleans())
        result = make_verification(self.shop.plan, kept.made.backup_id, deep)
        if self.damaged.intersection(kept.chain):
            assert result.status is CORRUPTED
            self.failed |= {kept.made.backup_id, *self.damaged.intersection(kept.chain)}
        else:
            assert (result.status, result.findings) == (VERIFIED, ())
            known = self.proved.get(kept.made.backup_id, verdict())
            deeper = deep or Axis.RESTORABLE in known.axes
            self.proved[kept.made.backup_id] = verdict("br" if deeper else "b")
            assert result.rows == kept.made.rows

    @invariant()
    def what_is_kept_is_listed_in_order(self) -> None:
        if hasattr(self, "kept"):
            assert self.shop.ids == list(self.kept)
            assert not self.shop.repository.survey("trading").findings


class PlainChains(Chains):
    encrypted = False


LIMITS = settings(
    max_examples=int(os.environ.get("LASTGOOD_CHAINS", "13")),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Chains, PlainChains])
@pytest.mark.share(2)
def test_every_kept_backup_restores_what_the_model_remembers(machine: type[Chains]) -> None:
    run_state_machine_as_test(machine, settings=LIMITS)
