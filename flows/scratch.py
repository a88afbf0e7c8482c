"""A scratch restore: the whole backup really restored into an empty folder, and read back as a backup would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from blocks.canonical import DIGEST, KEY
from blocks.errors import CorruptionDetected
from blocks.partindex import PartIndex
from blocks.plan import BackupPlan
from blocks.selection import Selection
from blocks.sources.base import CollectionSpec, RestoreMode, View
from flows.chain import Chain
from flows.parcel import RestorePart
from flows.preview import comparable
from flows.proof import compare
from flows.targets import Targets, by_source, open_targets


class Scratch:
    """A restore of a backup into a folder that nobody else knows.

    What is kept of each part for the comparison is its keys and digests, without the columns that are not restored.
    """

    def __init__(self, plan: BackupPlan, chain: Chain, folder: Path, targets: Targets) -> None:
        self._plan, self._chain, self._folder, self._targets = plan, chain, folder, targets
        self._expected: dict[str, PartIndex] = {}

    def apply(self, part: RestorePart, rows: pa.Table) -> None:
        """Write one part."""
        self._targets.of(part).apply(part.spec, rows)
        normal = comparable(rows, part, self._chain.digest)
        self._expected[str(part)] = PartIndex.of(
            normal.column(KEY).combine_chunks(), normal.column(DIGEST).combine_chunks()
        )

    def compare_restored(self) -> None:
        """Commit the scratch restore, read it through the source, and compare it part by part.

        Raises:
            CorruptionDetected: What was restored is not what was backed up.
        """
        self._targets.commit()
        for name in sorted({c.source for c in self._chain.target.collections}):
            source = self._plan.sources[name]
            with source.at(source.scratch(self._folder / name)).view() as view:
                specs = {spec.name: spec for spec in view.collections()}
                for part in self._chain.parts(Selection()):
                    if part.collection.source == name:
                        self._compare_part(part, view, specs)

    def _compare_part(self, part: RestorePart, view: View, specs: dict[str, CollectionSpec]) -> None:
        spec = specs.get(part.spec.name)
        if spec is None or spec.fingerprint != part.collection.fingerprint:
            raise CorruptionDetected(f"{part}: the restored collection is missing or has another shape")
        rows = view.read(spec, part.part.bounds, None).rows
        if part.selection:  # a narrowed backup knows nothing of what came with its rows (the folders above a file)
            rows = part.selection.rows(rows, spec.label)
        expected = self._expected.get(str(part), PartIndex([]))
        compare(f"{part} as restored", expected, comparable(rows, part, self._chain.digest))


@contextmanager
def open_scratch(plan: BackupPlan, chain: Chain) -> Iterator[Scratch]:
    """Open a scratch restore of a whole backup; the folder is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="lastgood-verify-") as name:
        folder = Path(name)
        for source in by_source(plan, chain, Selection()):
            (folder / source).mkdir(mode=0o700)
        places = {s: plan.sources[s].scratch(folder / s) for s in plan.sources}
        try:
            with open_targets(plan, chain, Selection(), places, RestoreMode.EXACT) as targets:
                targets.begin()
                yield Scratch(plan, chain, folder, targets)
        finally:
            for source, place in places.items():
                plan.sources[source].discard_scratch(place)
