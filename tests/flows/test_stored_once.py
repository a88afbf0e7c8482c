"""Content that several names of a file have is stored once, and stays there for each of them."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.crypto.keyring import NoEncryption
from blocks.errors import CorruptionDetected
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.block import BackupRepository
from blocks.rows.merge import with_keys
from blocks.rows.parquet import from_parquet, rows_to_parquet
from blocks.rows.same import SAME_KEY, SAME_PART
from blocks.rows.selection import Selection
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.reading.diff import RowChange, compare_backups
from flows.reading.diff_rows import ChangeKind
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from flows.verify import make_verification
from tests.blocks.sources.files.kit import MIB, Seen, look, rewrite, source_of
from tests.blocks.sources.files.test_hard_links import CHANGES, NAMES, change
from tests.faults.forging import replace_plaintext
from tests.faults.live_state import PLAN
from tests.flows.flow_support import DIFFERENTIAL, EXACT, FULL, INCREMENTAL, MERGE

COLLECTION = "files/tree"


class Linked:
    """A plan of one folder, with parts of a mebibyte."""

    def __init__(self, home: Path, step: Callable[[bytes], None] = lambda path: None, **fields: object) -> None:
        self.home, self.tree, self.copies = home, home / "tree", 0
        (self.tree / "d").mkdir(parents=True)
        self.plan = BackupPlan(
            name=PLAN,
            sources={"files": source_of(self.tree, step, **({"part_size_bytes": MIB} | fields))},
            repository=BackupRepository(url=str(home / "repository")),
            encryption=NoEncryption(type="none"),
        )
        self.plan.repository.initialize(self.plan.encryption)

    def file(self, name: str, size: int, *names: str) -> None:
        (self.tree / name).write_bytes(random.Random(name).randbytes(size))
        for other in names:
            os.link(self.tree / name, self.tree / other)

    def back_up(self, kind: object = INCREMENTAL) -> BackupMetadata:
        made = make_backup(self.plan, kind)
        assert made.backup_type == kind, made.promoted_because
        return made

    def stored(self, made: BackupMetadata) -> int:
        folder = self.home / "repository" / "backups" / PLAN / made.backup_id
        return sum(path.stat().st_size for path in folder.glob("*.pack"))

    def restored(self, made: BackupMetadata, *keys: str) -> Seen:
        self.copies += 1
        place = self.home / f"copy{self.copies}"
        selection = Selection(keys=keys)
        make_restore(self.plan, RestoreRequest(made.backup_id, mode=MERGE, selection=selection, to=str(place)))
        seen = look(place)
        shutil.rmtree(place)
        return seen

    def chain(self, made: BackupMetadata) -> Chain:
        repository = self.plan.repository.unlock(self.plan.encryption)
        return Chain(repository, repository.find(PLAN, made.backup_id))

    def diff(self, before: BackupMetadata, after: BackupMetadata) -> list[RowChange]:
        chains = self.chain(before), self.chain(after)
        for chain in chains:
            chain.open_data(self.plan.sources)
        (found,) = compare_backups(*chains, Selection())
        return found.changes

    def is_proved(self, made: BackupMetadata) -> None:
        verification = make_verification(self.plan, made.backup_id)
        assert verification.status is BackupStatus.VERIFIED, verification.findings


@pytest.fixture
def linked(tmp_path: Path) -> Linked:
    """One file of 3 MiB, and its names before, in and behind another one of 2 MiB."""
    linked = Linked(tmp_path, part_size_bytes=2 * MIB)
    linked.file("m", 3 * MIB + 5, "a", "d/n", "z")
    linked.file("k", 2 * MIB, "y")
    linked.file("small", 5000, "d/small", "x")
    return linked


UNIQUE = 5 * MIB + 5005
SPARE = 100_000


def contents(changes: list[RowChange]) -> set[str]:
    # where a part begins inside of a file, that has a row beside its content which depends on the parts
    return {one.label for one in changes if one.key["offset"] % MIB == 0}


@pytest.mark.parametrize("part", [MIB, 64 * MIB])
def test_a_full_backup_stores_the_content_of_several_names_once(tmp_path: Path, part: int) -> None:
    linked = Linked(tmp_path, part_size_bytes=part)
    linked.file("m", 3 * MIB + 5, "a", "d/n", "z")
    linked.file("k", 2 * MIB, "y")
    linked.file("small", 5000, "d/small", "x")
    before, made = look(linked.tree), linked.back_up(FULL)
    assert UNIQUE < linked.stored(made) < UNIQUE + SPARE
    assert made.size_bytes > 16 * MIB  # what a restore has to have room for
    assert (len(made.collections[0].parts) > 8) == (part == MIB)
    assert linked.restored(made) == before
    linked.is_proved(made)


def test_each_name_alone_comes_back_with_its_content(linked: Linked) -> None:
    before, made = look(linked.tree), linked.back_up(FULL)
    for name in ("m", "a", "d/n", "z", "x", "d/small"):
        copy = linked.restored(made, name)
        assert copy[name.encode()][:6] == before[name.encode()][:6]
        assert [path for path in copy if path not in (b".", b"d")] == [name.encode()]


def test_names_that_come_later_and_content_that_is_rewritten_are_stored_once(linked: Linked) -> None:
    states = [(linked.back_up(FULL), look(linked.tree))]
    os.link(linked.tree / "m", linked.tree / "zz")
    states.append((linked.back_up(), look(linked.tree)))
    assert linked.stored(states[-1][0]) < SPARE
    rewrite(linked.tree / "z", random.Random("new").randbytes(3 * MIB))
    states.append((linked.back_up(), look(linked.tree)))
    assert 3 * MIB < linked.stored(states[-1][0]) < 3 * MIB + SPARE
    os.link(linked.tree / "k", linked.tree / "zk")
    states.append((linked.back_up(DIFFERENTIAL), look(linked.tree)))
    assert 3 * MIB < linked.stored(states[-1][0]) < 3 * MIB + SPARE
    for made, state in states:
        linked.is_proved(made)
        assert linked.restored(made) == state


def test_a_name_that_goes_or_changes_leaves_the_others_their_content(linked: Linked) -> None:
    states = [(linked.back_up(FULL), look(linked.tree))]
    (linked.tree / "a").unlink()
    states.append((linked.back_up(), look(linked.tree)))
    assert linked.stored(states[-1][0]) < SPARE  # what others have is as it was: nothing is stored for it
    (linked.tree / "d" / "n").unlink()
    (linked.tree / "d" / "n").write_bytes(random.Random("other").randbytes(3 * MIB))
    states.append((linked.back_up(), look(linked.tree)))
    (linked.tree / "m").unlink()
    (linked.tree / "k").rename(linked.tree / "0")
    states.append((linked.back_up(DIFFERENTIAL), look(linked.tree)))
    for made, state in states:
        linked.is_proved(made)
        assert linked.restored(made) == state
        assert linked.restored(made, "z")[b"z"][:6] == state[b"z"][:6]


def test_a_difference_is_told_for_each_name_and_none_where_only_a_name_went(linked: Linked) -> None:
    first = linked.back_up(FULL)
    (linked.tree / "a").unlink()
    second = linked.back_up()
    changes = linked.diff(first, second)
    assert contents(changes) == {"a"}
    assert {one.label: one.kind for one in changes}["z"] is ChangeKind.CHANGED  # its first name is another one now
    rewrite(linked.tree / "m", random.Random("new").randbytes(3 * MIB + 5), keep_mtime=True)
    third = linked.back_up()
    changes = linked.diff(second, third)
    assert contents(changes) == {"m", "d/n", "z"}
    for change_ in changes:
        (values,) = [one for one in change_.fields if one.name == "data"]
        offset = change_.key["offset"]
        assert values.new == (linked.tree / "m").read_bytes()[offset : offset + MIB]
        assert values.old == random.Random("m").randbytes(3 * MIB + 5)[offset : offset + MIB]


def test_a_name_is_restored_in_place_previewed_and_taken_back(linked: Linked) -> None:
    made, before = linked.back_up(FULL), look(linked.tree)
    (linked.tree / "z").unlink()
    (linked.tree / "z").write_bytes(b"newer")
    changed = look(linked.tree)
    wanted = RestoreRequest(made.backup_id, mode=EXACT, selection=Selection(keys=("z",)))
    result = make_restore(linked.plan, wanted)
    assert look(linked.tree)[b"z"][:6] == before[b"z"][:6]
    assert look(linked.tree)[b"a"][6] == {b"a", b"m", b"d/n"}
    rescue = linked.chain(linked.back_up(FULL)).repository.find(PLAN, str(result.rescue_id))
    linked.is_proved(rescue)
    make_undo(linked.plan)
    assert {path: one for path, one in look(linked.tree).items() if path != b"."} == {
        path: one for path, one in changed.items() if path != b"."
    }
    make_restore(linked.plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert look(linked.tree) == before
    preview = make_restore(linked.plan, RestoreRequest(made.backup_id, mode=EXACT, preview=True)).collections[0]
    assert (preview.added, preview.changed, preview.removed) == (0, 0, 0)
    make_undo(linked.plan)
    assert look(linked.tree)[b"z"][:6] == changed[b"z"][:6]


def test_what_the_plan_leaves_out_carries_no_content_for_others(tmp_path: Path) -> None:
    linked = Linked(tmp_path, exclude=["/a", "d"])
    linked.file("a", 3 * MIB, "d/n", "m", "z")
    before, made = look(linked.tree), linked.back_up(FULL)
    assert 3 * MIB < linked.stored(made) < 3 * MIB + SPARE
    assert linked.restored(made, "z")[b"z"][:6] == before[b"z"][:6]
    linked.is_proved(made)


def test_a_name_in_a_part_that_is_read_again_leaves_no_other_one_without_content(tmp_path: Path) -> None:
    def step(path: bytes) -> None:
        if path == b"zlarge" and not seen:
            seen.append(path)
            (linked.tree / "big").write_bytes(os.urandom(5 * MIB))

    seen = [b""]
    linked = Linked(tmp_path, step, on_change="skip")
    linked.file("big", 4 * MIB, "zbig")
    shutil.copy2(linked.tree / "big", linked.tree / "large")  # another file, with the same content
    os.link(linked.tree / "large", linked.tree / "zlarge")
    before, first = look(linked.tree), linked.back_up(FULL)
    assert linked.stored(first) < 4 * MIB + SPARE
    assert linked.restored(first) == before
    for kind in (FULL, DIFFERENTIAL):
        seen.clear()
        made = linked.back_up(kind)
        assert seen
        assert {w.split(";")[0].split(" and ")[0] for w in made.sources[0].warnings} >= {
            "big kept changing",
            "zbig kept changing",
        }
        for name in ("large", "zlarge"):
            assert linked.restored(made, name)[name.encode()][:6] == before[name.encode()][:6]
        linked.is_proved(made)


GENERATIONS = st.lists(
    st.tuples(CHANGES, st.sampled_from([FULL, INCREMENTAL, INCREMENTAL, DIFFERENTIAL])), min_size=2, max_size=4
)


@settings(max_examples=12, deadline=None)
@given(GENERATIONS)
def test_random_histories_of_names_restore_exactly_and_store_content_once(generations: list) -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # of the host's memory
        linked = Linked(Path(folder), allow_empty=True)
        made: list[tuple[BackupMetadata, Seen]] = []
        for number, (changes, kind) in enumerate(generations):
            for what, name, value in changes:
                change(linked.tree, what, name, value, rng)
            # where much comes to one part, it becomes a full one
            made.append((make_backup(linked.plan, kind if number else FULL), look(linked.tree)))
            if made[-1][0].backup_type == FULL:
                once = {one.st_ino: one.st_size for one in map(os.stat, filter(os.path.isfile, paths(linked.tree)))}
                assert linked.stored(made[-1][0]) < sum(once.values()) + SPARE
        for (before, was), (after, now) in pairwise(made):
            told = contents(linked.diff(before, after))
            different = {path.decode() for path in {*was, *now} if content(was, path) != content(now, path)}
            assert told == different
        for backup, state in made:
            assert linked.restored(backup) == state
            linked.is_proved(backup)
        backup, state = made[-1]
        for name in {name.encode() for name in NAMES} & state.keys():
            assert linked.restored(backup, name.decode())[name][:6] == state[name][:6]


def paths(tree: Path) -> Iterator[Path]:
    return (tree / name for name in NAMES)


def content(state: Seen, path: bytes) -> object:
    """What makes the content rows of a name; none of what is no file, or empty."""
    found = state[path][4] if path in state else None
    return found if isinstance(found, tuple) and found[0] else None


# References that no honest run makes


def altered(change_: Callable[[pa.Table, pa.LargeBinaryArray, list[int]], pa.Table]) -> Callable[[bytes], pa.Buffer]:
    """Change the rows of a segment; the positions of those that refer to others are handed in."""

    def rewritten(data: bytes) -> pa.Buffer:
        rows = from_parquet(data, "the segment")
        keys = with_keys(rows, ("path", "offset")).column("_key").combine_chunks()
        at = pc.indices_nonzero(rows.column(SAME_KEY).is_valid()).to_pylist()
        return rows_to_parquet(change_(rows, keys, at), keys, 3)

    return rewritten


def put(rows: pa.Table, name: str, values: list[object], kind: pa.DataType) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pa.array(values, kind))


def naming(of: Callable[[pa.LargeBinaryArray, int], bytes]) -> Callable[..., pa.Table]:
    """Let each reference name another key of its own part."""

    def changed(rows: pa.Table, keys: pa.LargeBinaryArray, at: list[int]) -> pa.Table:
        named = [of(keys, n) if n in at else None for n in range(rows.num_rows)]
        rows = put(rows, SAME_PART, [0 if n in at else None for n in range(rows.num_rows)], pa.int64())
        return put(rows, SAME_KEY, named, pa.large_binary())

    return changed


def in_part(number: int | None) -> Callable[..., pa.Table]:
    return lambda rows, keys, at: put(
        rows, SAME_PART, [number if n in at else None for n in range(rows.num_rows)], pa.int64()
    )


def beside_a_value(rows: pa.Table, keys: pa.LargeBinaryArray, at: list[int]) -> pa.Table:
    return put(rows, "data", [b"x" if n in at else None for n in range(rows.num_rows)], pa.large_binary())


def the_longest(rows: pa.Table, keys: pa.LargeBinaryArray, at: list[int]) -> pa.Table:
    lengths = pc.fill_null(pc.binary_length(rows.column("data")), 0).to_pylist()
    longest = lengths.index(max(lengths))
    return naming(lambda keys, n: keys[longest].as_py())(rows, keys, at)


FORGED: dict[str, tuple[Callable[..., pa.Table], str]] = {
    "itself": (naming(lambda keys, n: keys[n].as_py()), "to a row that is none itself"),
    "nothing": (naming(lambda keys, n: b"\x30nowhere\0\1\x10" + bytes(8)), "leads nowhere"),
    "an entry": (naming(lambda keys, n: keys[0].as_py()), "to a row without a value"),
    "a part that is not there": (in_part(77), "lacks part"),
    "no part": (in_part(None), "says that it is that of another one"),
    "another value than its own": (beside_a_value, "says that it is that of another one"),
    "too much": (the_longest, "take more than the manifest says"),
    "columns of other types": (
        lambda rows, keys, at: put(rows, SAME_PART, ["0"] * rows.num_rows, pa.large_string()),
        "has no column _same_part of the right type",
    ),
    "half of the columns": (lambda rows, keys, at: rows.drop_columns([SAME_PART]), "has no column _same_part"),
}


@pytest.mark.parametrize("name", FORGED)
def test_references_that_lead_nowhere_are_found_before_anything_is_written(tmp_path: Path, name: str) -> None:
    linked = Linked(tmp_path, part_size_bytes=64 * MIB)
    linked.file("k", 1_000_000)
    for number in range(20):
        linked.file(f"m{number}", 2000 + number, f"z{number}")
    made = linked.back_up(FULL)
    forge, told = FORGED[name]
    repository = linked.plan.repository.unlock(linked.plan.encryption)
    replace_plaintext(tmp_path / "repository", repository, made, (COLLECTION, 0), altered(forge))
    with pytest.raises(CorruptionDetected, match=told):
        make_restore(linked.plan, RestoreRequest(made.backup_id, mode=EXACT, to=str(tmp_path / "copy")))
    assert not (tmp_path / "copy").exists()
    assert make_verification(linked.plan, made.backup_id, deep=False).status is BackupStatus.CORRUPTED


def test_a_value_of_another_row_is_found_by_a_proof(tmp_path: Path) -> None:
    linked = Linked(tmp_path, part_size_bytes=64 * MIB)
    for number in range(20):
        linked.file(f"m{number}", 3000, f"z{number}")
    made = linked.back_up(FULL)

    def exchanged(rows: pa.Table, keys: pa.LargeBinaryArray, at: list[int]) -> pa.Table:
        named = rows.column(SAME_KEY).to_pylist()
        named[at[0]], named[at[1]] = named[at[1]], named[at[0]]
        return put(rows, SAME_KEY, named, pa.large_binary())

    repository = linked.plan.repository.unlock(linked.plan.encryption)
    replace_plaintext(tmp_path / "repository", repository, made, (COLLECTION, 0), altered(exchanged))
    verification = make_verification(linked.plan, made.backup_id, deep=False)
    assert verification.status is BackupStatus.CORRUPTED
    assert "0 rows are missing, 2 differ" in verification.findings[0]
