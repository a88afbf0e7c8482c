"""A scratch restore: the whole backup really restored into an empty folder, read back as a backup would, and checked.

Each source is restored by itself, so that one that cannot be leaves the others to be proved.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from blocks.errors import CorruptionDetected, CouldNotBeTried, LastgoodError, TemporaryFolderUnusable
from blocks.host.leftovers import scratch_folder
from blocks.plan.plan import BackupPlan
from blocks.rows.canonical import DIGEST, KEY, one_chunk
from blocks.rows.index import PartIndex
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.comparing import ComparesByMeaning, LeavesOut
from blocks.sources.proving import ChecksRestored, DefinesObjects
from blocks.sources.source import StateSource
from blocks.sources.target import Examining, KeepsGoing, LeavesOutRows, NotRebuilt, Target
from blocks.sources.view import View, read_whole
from blocks.verification import Axis, CheckOutcome, Depth
from flows.pipeline.chain import Chain, RestorePart
from flows.proving.definitions import Change, differences, shown
from flows.proving.proof import Proof, compare
from flows.proving.trial import Trial
from flows.restoring.change_list import ChangeList
from flows.restoring.records import brought_back, comparable
from flows.restoring.request import RestoreRequest
from flows.restoring.targets import Targets, open_targets

logger = logging.getLogger(__name__)


class ScratchRestore:
    """A restore of a backup into a folder that nobody else knows.

    What is kept of each part for the comparison is its keys and digests, without the columns that are not restored.

    Args:
        plan: Its sources restore, and read back.
        chain: The backup, with those it depends on.

    Attributes:
        restore_seconds: How long it took until all sources were there and committed, the reading of the backup
            included and the proofs after that not; None before, and where one of them could not be restored.
        place: Host and folder that it is made in; None where it could not be begun.
    """

    def __init__(self, plan: BackupPlan, chain: Chain) -> None:
        self._plan, self._chain = plan, chain
        self._places: dict[str, str] = {}
        self._targets: dict[str, Targets] = {}
        self._trials: dict[str, Trial] = {}
        self._expected: dict[str, PartIndex] = {}
        self._opaque: dict[str, pa.UInt64Array] = {}
        self._unproven: list[str] = []
        self._opened_at = time.monotonic()
        self.restore_seconds: float | None = None
        self.place: str | None = None

    def begin(self, folder: Path, opened: ExitStack) -> None:
        """Begin the restore of each source.

        Args:
            folder: An empty folder that nobody else knows.
            opened: Ends the restores, and removes what they left elsewhere.

        Raises:
            ConfigurationError: The plan is wrong.
        """
        self.place = f"{socket.gethostname()}:{folder.parent}"
        sources = self._plan.sources
        self._places = {name: source.scratch(folder / name) for name, source in sources.items()}
        changes = ChangeList(self._plan, self._chain, RestoreRequest(scratch=self._places, keep_going=True))
        for name, place in self._places.items():
            opened.callback(_discard, sources[name], place)
        for name in changes.sources:
            self._trials[name] = trial = Trial()
            with trial.step():
                (folder / name).mkdir(mode=0o700)
                self._targets[name] = targets = opened.enter_context(open_targets(changes.of(name)))
                targets.begin()

    def give_up(self, error: LastgoodError) -> None:
        """Restore nothing, for a reason."""
        for name in sorted({collection.source for collection in self._chain.target.collections}):
            self._trials[name] = trial = Trial()
            trial.end(error)

    def apply(self, part: RestorePart, rows: pa.Table, proved: PartIndex) -> None:
        """Write one part, whose rows were found to be those of the index `proved`, unless its restore has ended."""
        trial = self._trials[part.collection.source]
        if trial.goes_on:
            with trial.step():
                self._apply(part, rows, proved)

    def _apply(self, part: RestorePart, rows: pa.Table, proved: PartIndex) -> None:
        target = self._target(part.collection.source)
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

    def prove(self, proof: Proof) -> None:
        """Complete the restore, read it back, compare and check it; a finding goes to the axis that it speaks of."""
        seconds, committed = time.monotonic() - self._opened_at, 0
        for name, trial in self._trials.items():
            if trial.goes_on:
                with trial.step():
                    started = time.monotonic()
                    self._targets[name].commit()
                    seconds, committed = seconds + time.monotonic() - started, committed + 1
                    self._check_taken(name)
                    self._prove_source(name, proof)
            self._conclude(name, trial.error, proof)
        if committed == len(self._trials):
            self.restore_seconds = round(seconds, 3)
        proof[Axis.RESTORABLE].unproven += self._unproven
        if any(isinstance(trial.error, CouldNotBeTried) for trial in self._trials.values()):
            for axis in (proof[Axis.RESTORABLE], proof[Axis.DEFINITIONS]):
                axis.depth = axis.depth if axis.bad else None  # of the backup as a whole

    def _conclude(self, name: str, error: LastgoodError | None, proof: Proof) -> None:
        """Say what ended the restore of a source, where something did."""
        restorable, definitions = proof[Axis.RESTORABLE], proof[Axis.DEFINITIONS]
        if isinstance(error, CouldNotBeTried):
            said = f"{name}: a scratch restore could not be tried: {error.message}."
            restorable.unproven.append(f"{said} {error.hint}".strip())
            definitions.unproven.append(f"{name}: definitions were not compared, since nothing was restored.")
            return
        restorable.reach(Depth.RESTORED)
        if error is None:
            definitions.reach(Depth.RESTORED)
        else:
            restorable.bad.append(f"{name}: a restore fails: {error.message}")

    def _target(self, source: str) -> Target:
        return self._targets[source].by_source[source]

    def _prove_source(self, name: str, proof: Proof) -> None:
        self._tell(name, proof)
        source = self._plan.sources[name].at(self._places[name]).unnarrowed()
        with source.view() as view:
            specs = {spec.name: spec for spec in view.collections()}
            try:
                for part in self._chain.parts(Selection()):
                    if part.collection.source == name:
                        self._compare_part(part, view, specs)
            except CorruptionDetected as exc:
                proof[Axis.RESTORABLE].bad.append(exc.message)
            made = dict(view.definition)
        definition = next(state.definition for state in self._chain.target.sources if state.name == name)
        self._compare_definitions(name, source, definition, made, proof)
        if isinstance(source, ChecksRestored):
            proof[Axis.QUALITY].reach(Depth.RESTORED)
            for found in source.check_restored(definition):
                axis = proof[found.axis]
                kept = {CheckOutcome.BAD: axis.bad, CheckOutcome.UNPROVEN: axis.unproven}.get(found.outcome, axis.odd)
                kept.append(f"{name}: {found.sentence}")

    def _tell(self, name: str, proof: Proof) -> None:
        """Say what the target left out, and what it has found in what it wrote."""
        target, restorable, quality = self._target(name), proof[Axis.RESTORABLE], proof[Axis.QUALITY]
        for left in self._left_out(name):
            (restorable.bad if left.faulty else restorable.unproven).append(f"{name}: {left.said}.")
        if isinstance(target, Examining):
            restorable.bad += [f"as restored: {name}: {sentence}" for sentence in target.examination.damage]
            quality.bad += [f"{name}: {sentence}" for sentence in target.examination.oddities]
            quality.unproven += [f"{name}: {sentence}" for sentence in target.examination.unproven]

    def _left_out(self, name: str) -> list[NotRebuilt]:
        target = self._target(name)
        return list(target.not_rebuilt) if isinstance(target, KeepsGoing) else []

    def _compare_definitions(
        self,
        name: str,
        source: StateSource,
        wanted: Mapping[str, JsonValue],
        made: Mapping[str, JsonValue],
        proof: Proof,
    ) -> None:
        """Compare what was rebuilt with the manifest, object by object.

        What the place cannot have, and all that may depend on it, is unproven; so is what a later version of the server
        writes otherwise.
        """
        if not isinstance(source, DefinesObjects):
            return
        left = {one.name: one.faulty for one in self._left_out(name)}
        lacking, other_version = not all(left.values()), wanted.get("server_version") != made.get("server_version")
        found = differences(source, wanted, made)
        if wanted.get("narrowed"):  # it does not say what its objects are in
            found = [one for one in found if one.change is not Change.NEW]
        if not self._chain.target.whole:  # its definition is that of all state, of which it holds only some
            found = [one for one in found if one.change is not Change.GONE]
        unproven = [
            one
            for one in found
            if (lacking and not left.get(str(one.thing)))
            or (other_version and not (one.weakens and one.change is Change.GONE))
        ]
        bad = [one for one in found if one not in unproven]
        definitions = proof[Axis.DEFINITIONS]
        definitions.bad += [f"{name}: as restored {clause}." for clause in shown(bad)]
        definitions.unproven += [f"{name}: unproven here: as restored {clause}." for clause in shown(unproven)]

    def _check_taken(self, name: str) -> None:
        """Refuse to judge a source of which records were left out that are not known one by one."""
        target = self._target(name)
        if isinstance(target, LeavesOutRows) and not isinstance(target, LeavesOut):
            for left in filter(lambda left: left.compared, self._left_out(name)):
                raise CouldNotBeTried(
                    f"the scratch restore cannot take {left.name}: {left.reason}",
                    hint="Nothing is said of the backup. Let TMPDIR name a folder on a file system that takes it.",
                )

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
        if spec is None and not len(expected) and isinstance(self._target(part.collection.source), LeavesOut):
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
    """Open a scratch restore of a whole backup; the folder is removed afterwards.

    Where it cannot be begun, that is what it says in the end.

    Raises:
        ConfigurationError: The plan is wrong.
    """
    with ExitStack() as opened:
        scratch = ScratchRestore(plan, chain)
        try:
            folder = opened.enter_context(scratch_folder("verify", plan.name))
        except TemporaryFolderUnusable as exc:
            scratch.give_up(exc)
        else:
            scratch.begin(folder, opened)
        yield scratch


def _discard(source: StateSource, place: str) -> None:
    try:
        source.discard_scratch(place)
    except LastgoodError as exc:  # a server that is gone; the next verification there removes it
        logger.warning("what a scratch restore left could not be removed: %s", exc.message)
