"""A scratch restore: the whole backup really restored into an empty folder, and read back as a backup would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, CouldNotBeTried
from blocks.host.leftovers import scratch_folder
from blocks.plan.plan import BackupPlan
from blocks.rows.canonical import DIGEST, KEY, one_chunk
from blocks.rows.index import PartIndex
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.comparing import ComparesByMeaning, LeavesOut
from blocks.sources.target import KeepsGoing, LeavesOutRows
from blocks.sources.view import View, read_whole
from blocks.verification import Axis, Depth
from flows.pipeline.chain import Chain, RestorePart
from flows.proving.proof import Proof, compare
from flows.restoring.change_list import ChangeList
from flows.restoring.records import brought_back, comparable
from flows.restoring.request import RestoreRequest
from flows.restoring.targets import Targets, open_targets


class ScratchRestore:
    """A restore of a backup into a folder that nobody else knows.

    What is kept of each part for the comparison is its keys and digests, without the columns that are not restored.
    """

    def __init__(self, plan: BackupPlan, chain: Chain, folder: Path, targets: Targets) -> None:
        self._plan, self._chain, self._folder, self._targets = plan, chain, folder, targets
        self._expected: dict[str, PartIndex] = {}
        self._opaque: dict[str, pa.UInt64Array] = {}
        self._unproven: list[str] = []
        self._opened_at = time.monotonic()
        self.restore_seconds: float | None = None
        """From when the scratch place was opened until all of it was there and committed; None before."""

    def apply(self, part: RestorePart, rows: pa.Table, proved: PartIndex) -> None:
        """Write one part, whose rows were found to be those of the index `proved`."""
        target = self._targets.of(part)
        target.apply(part.spec, rows)
        taken = rows
        if isinstance(target, LeavesOut) and rows.num_rows:
            taken = self._taken(part, rows, target.left_out(part.spec, rows))
        taken, self._opaque[str(part)] = self._by_meaning(part, taken)
        if taken is rows and brought_back(rows, part).num_columns == rows.num_columns:
            self._expected[str(part)] = PartIndex.of(proved.keys, proved.digests)
            return
        normal = comparable(taken, part, self._chain.index_digest)
        self._expected[str(part)] = PartIndex.of(one_chunk(normal.column(KEY)), one_chunk(normal.column(DIGEST)))

    def compare_restored(self) -> None:
        """Commit the scratch restore, read it through the source, and compare it part by part.

        Raises:
            CorruptionDetected: What was restored is not what was backed up.
            CouldNotBeTried: The scratch place does not take all of it.
        """
        self._targets.commit()
        self.restore_seconds = round(time.monotonic() - self._opened_at, 3)
        self._check_taken()
        for name in sorted({c.source for c in self._chain.target.collections}):
            source = self._plan.sources[name]
            with source.at(source.scratch(self._folder / name)).unnarrowed().view() as view:
                specs = {spec.name: spec for spec in view.collections()}
                for part in self._chain.parts(Selection()):
                    if part.collection.source == name:
                        self._compare_part(part, view, specs)

    def _check_taken(self) -> None:
        """Refuse to judge a source of which records were left out that are not known one by one."""
        for name, target in self._targets.by_source.items():
            if (
                isinstance(target, KeepsGoing)
                and isinstance(target, LeavesOutRows)
                and not isinstance(target, LeavesOut)
            ):
                for left in filter(lambda left: left.compared, target.not_rebuilt):
                    raise CouldNotBeTried(
                        f"source {name}: the scratch restore cannot take {left.name}: {left.reason}",
                        hint="Nothing is said of the backup. Let TMPDIR name a folder on a file system that takes it.",
                    )

    def report(self, proof: Proof) -> None:
        """Put what was found beside the comparison on its axes."""
        proof[Axis.RESTORABLE].odd += self.warnings
        if self.findings:
            proof[Axis.QUALITY].reach(Depth.RESTORED)
            proof[Axis.QUALITY].bad += self.findings

    @property
    def warnings(self) -> list[str]:
        """What a restore cannot rebuild here, and what could not be compared, as sentences; all else was."""
        left_out = self._targets.left_out
        lost = [f"{left.source}: {left.name} cannot be rebuilt here: {left.reason}." for left in left_out]
        return [*lost, *self._targets.oddities, *self._unproven]

    @property
    def findings(self) -> list[str]:
        """What is wrong with the restored state although it is what was backed up, as sentences."""
        return [f"as restored: {sentence}" for sentence in self._targets.damage]

    def _taken(self, part: RestorePart, rows: pa.Table, gone: pa.BooleanArray) -> pa.Table:
        """Leave out the records that the target did not take."""
        if not pc.any(gone).as_py():
            return rows
        labels = list(part.spec.label)
        count = rows.filter(gone).select(labels).group_by(labels).aggregate([]).num_rows
        self._unproven.append(f"{part}: {count:,} keys are unproven: the scratch restore does not take them.")
        return rows.filter(pc.invert(gone))

    def _by_meaning(self, part: RestorePart, rows: pa.Table) -> tuple[pa.Table, pa.UInt64Array]:
        """Return rows in the form that they are compared in, and the digests of those with bytes that are left out."""
        source = self._plan.sources[part.collection.source]
        if not isinstance(source, ComparesByMeaning) or not rows.num_columns:
            return rows, pa.array([], pa.uint64())
        rows = source.by_meaning(part.spec, rows)
        opaque, without = source.opaque(part.spec, rows)
        if not pc.any(opaque).as_py():
            return rows, pa.array([], pa.uint64())
        whole = comparable(rows.filter(opaque), part, self._chain.index_digest)
        return without, whole.column(DIGEST).combine_chunks()

    def _compare_part(self, part: RestorePart, view: View, specs: dict[str, CollectionSpec]) -> None:
        spec = specs.get(part.spec.name)
        expected = self._expected.get(str(part), PartIndex([]))
        if spec is None and not len(expected) and isinstance(self._targets.of(part), LeavesOut):
            return  # it could not be made, and nothing of it was taken
        if spec is None or not spec.fits(part.spec):
            raise CorruptionDetected(f"{part}: the restored collection is missing or has another shape")
        lacking = spec.lacking(part.spec)
        if spec.columns != part.spec.columns:
            spec = part.spec  # which the view reads in the order of the backup, that the hash of a row depends on
        rows = read_whole(view, spec, part.part.bounds).rows
        rows = rows.drop_columns([name for name in lacking if name in rows.column_names])
        if part.selection:  # a narrowed backup knows nothing of what came with its rows (the folders above a file)
            rows = part.selection.rows(rows, spec.label)
        rows, found = self._by_meaning(part, rows)
        before = self._opaque.get(str(part))
        if before is not None and len(before):
            differing = len(before) - int(pc.sum(pc.is_in(before, value_set=found)).as_py() or 0)
            if differing:
                self._unproven.append(
                    f"{part}: {differing:,} of {len(before):,} values that only their module can read came back in "
                    "other bytes, which may mean the same: they are unproven."
                )
        rows = brought_back(rows, part)
        compare(f"{part} as restored", expected, rows, part.spec.key, self._chain.index_digest)


@contextmanager
def open_scratch(plan: BackupPlan, chain: Chain) -> Iterator[ScratchRestore]:
    """Open a scratch restore of a whole backup; the folder is removed afterwards."""
    with scratch_folder("verify", plan.name) as folder:
        places = {s: plan.sources[s].scratch(folder / s) for s in plan.sources}
        changes = ChangeList(plan, chain, RestoreRequest(scratch=places, keep_going=True))
        for source in changes.sources:
            (folder / source).mkdir(mode=0o700)
        try:
            with open_targets(changes) as targets:
                targets.begin()
                yield ScratchRestore(plan, chain, folder, targets)
        finally:
            for source, place in places.items():
                plan.sources[source].discard_scratch(place)
