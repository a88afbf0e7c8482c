"""The diff of two backups is that of two dictionaries, however the rows moved between parts."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.sqlite import SQLiteSource
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.reading.diff import compare_backups
from flows.reading.diff_rows import ChangeKind

State = dict[str, tuple[object, ...]]

VALUES = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.binary(max_size=5))
STATES = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), st.tuples(VALUES, VALUES), max_size=60
)


def write(path: Path, state: State) -> None:
    with sqlite3.connect(path) as db:
        db.execute("create table if not exists t(k text primary key, a, b) without rowid")
        db.execute("delete from t")
        db.executemany("insert into t values (?, ?, ?)", [(key, *values) for key, values in state.items()])
    db.close()


@pytest.mark.parametrize("kind", [BackupType.FULL, BackupType.INCREMENTAL])
@settings(max_examples=12)
@given(before=STATES, after=STATES, shared=STATES)
def test_the_diff_of_two_backups_is_that_of_two_dictionaries(
    kind: BackupType, before: State, after: State, shared: State
) -> None:
    before, after = before | shared, after | shared
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = BackupPlan(
            name="p",
            sources={"s": SQLiteSource(path=str(folder / "db"), part_size_bytes=300, allow_empty=True)},
            repository=BackupRepository(url=str(folder / "r")),
            encryption=NoEncryption(type="none"),
        )
        plan.repository.initialize(plan.encryption)
        made = []
        for state, wanted in ((before, BackupType.FULL), (after, kind)):
            write(folder / "db", state)
            made.append(make_backup(plan, wanted))
        repository = plan.repository.unlock(plan.encryption)
        chains = [Chain(repository, repository.find("p", one.backup_id)) for one in made]
        (found,) = compare_backups(chains[0], chains[1], Selection())
    told = {change.key["k"]: change for change in found.changes}
    assert {key for key, one in told.items() if one.kind is ChangeKind.ADDED} == after.keys() - before.keys()
    assert {key for key, one in told.items() if one.kind is ChangeKind.REMOVED} == before.keys() - after.keys()
    changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
    assert {key for key, one in told.items() if one.kind is ChangeKind.CHANGED} == changed
    for key in changed:
        fields = {one.name: (one.old, one.new) for one in told[key].fields}
        pairs = zip("ab", before[key], after[key], strict=True)
        assert fields == {name: (old, new) for name, old, new in pairs if old != new}
    assert found.total == len(found.changes)
