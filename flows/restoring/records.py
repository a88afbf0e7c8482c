"""The change list by record: the rows that a restore adds, changes and deletes, found by comparing; writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from blocks.records import Collection
from blocks.rows.canonical import DIGEST, KEY, escape, to_canonical
from blocks.rows.changes import changes_between
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.keys import encode_keys, no_keys
from blocks.rows.normalize import to_normal
from blocks.rows.overlay import DELETED
from blocks.sources.collection import CollectionSpec
from blocks.sources.target import RestoreMode
from blocks.sources.view import View, read_whole
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import spec_of
from flows.pipeline.results import RecordSample
from flows.restoring.by_content import Contents
from flows.restoring.change_list import ChangeList
from flows.restoring.samples import LiveState, Samples


@dataclass(frozen=True)
class RecordChanges:
    """What a restore does to the records of one collection.

    Attributes:
        collection: Full name of the collection: `source/collection`.
        rows: How many rows are restored.
        added: `_key`s (large_binary) of rows that are not there now.
        changed: `_key`s of rows that are there with another content.
        deleted: `_key`s of rows that are there and are deleted.
        replaced: How many rows go besides, because the collection is dropped or has another key now.
        samples: Some of these records, where the change list is asked for them.
        live: What is there now, as a digest; empty where nothing was compared by record.
    """

    collection: str
    rows: int
    added: pa.LargeBinaryArray = field(default_factory=no_keys)
    changed: pa.LargeBinaryArray = field(default_factory=no_keys)
    deleted: pa.LargeBinaryArray = field(default_factory=no_keys)
    replaced: int = 0
    samples: list[RecordSample] = field(default_factory=list)
    live: str = ""


def record_changes(
    changes: ChangeList, source: str, view: View | None, taken_back: Mapping[str, pa.LargeBinaryArray]
) -> Iterator[RecordChanges]:
    """Find what a restore does to the records of a source.

    Args:
        changes: The restore's change list.
        source: Name of the source.
        view: What is at the place now; None where nothing is that can be read.
        taken_back: `_key`s by full name of a collection that only the restore which is taken back has added.
    """
    for collection in changes.sources[source].collections:
        yield _Comparison(changes, collection, view, taken_back.get(collection.name, no_keys())).run()
    if view is not None:
        yield from _dropped(changes, source, view, taken_back)


def _dropped(
    changes: ChangeList, source: str, view: View, taken_back: Mapping[str, pa.LargeBinaryArray]
) -> Iterator[RecordChanges]:
    """Find what goes of collections that the backup does not hold: all of them, or what a restore put into them."""
    here, exact = changes.sources[source], changes.wanted.mode is RestoreMode.EXACT
    state = changes.chain.target.source(source)
    # what lies beside the chosen collections is never touched
    everything = exact and here.everything and not state.definition.get("narrowed")
    held = {c.name for c in changes.chain.target.collections}
    for spec in view.collections():
        name = f"{source}/{spec.name}"
        if name in held or not (everything or spec.name in here.created):
            continue
        if (added := taken_back.get(name)) is not None:
            yield RecordChanges(name, rows=0, deleted=_keys_among(view, spec, added))
        elif exact:
            yield RecordChanges(name, rows=0, replaced=_count(view, spec))


def _count(view: View, spec: CollectionSpec) -> int:
    return sum(read_whole(view, spec, bounds).rows.num_rows for bounds in view.partition(spec))


def _keys_among(view: View, spec: CollectionSpec, keys: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    found = [no_keys()]
    for bounds in view.partition(spec):
        rows = read_whole(view, spec, bounds).rows
        if rows.num_columns:
            there = encoded_keys(rows, spec)
            found.append(there.filter(pc.is_in(there, keys)))
    return pa.concat_arrays(found)


def encoded_keys(rows: pa.Table, spec: CollectionSpec) -> pa.LargeBinaryArray:
    """Encode the key columns of a source's rows as `_key`s."""
    return encode_keys(to_canonical(rows), [escape(name) for name in spec.key])


class _Comparison:
    """Compares one collection with what is there.

    A row whose key stayed and which moved to another part is deleted from one and added to the other; it counts as
    changed. So the keys that are added and deleted are kept until the end.
    """

    def __init__(
        self, changes: ChangeList, collection: Collection, view: View | None, taken_back: pa.LargeBinaryArray
    ) -> None:
        self._changes, self._collection, self._view = changes, collection, view
        self._taken_back = taken_back
        self._spec = spec_of(collection)
        definition = changes.chain.target.source(collection.source).definition
        self._then = changes.plan.sources[collection.source].as_backed_up(definition)
        self._added, self._changed, self._deleted = [no_keys()], [no_keys()], [no_keys()]
        self._exact = changes.wanted.mode is RestoreMode.EXACT
        # the elements of a key, the pieces of a file: what is written under one label replaces all that was under it
        self._in_pieces = not self._exact and set(self._spec.label) < set(self._spec.key)
        self._written, self._beside = [no_keys()], [(no_keys(), no_keys())]
        self._rows = 0
        self._live_state = LiveState()
        sampling = changes.wanted.sampling
        self._samples = Samples(sampling, sampling.shows_values(collection.name), self._spec.label)

    def run(self) -> RecordChanges:
        """Compare all parts."""
        changes = self._changes
        if changes.by_content(self._collection):
            return self._by_content()
        here = self._here()
        same = here is not None and (here.key, here.definition) == (self._spec.key, self._spec.definition)
        for part in self._parts():
            self._compare(part, here if same else None)
        added, deleted = pa.concat_arrays(self._added), pa.concat_arrays(self._deleted)
        moved = pc.is_in(added, deleted)
        gone = deleted.filter(pc.invert(pc.is_in(deleted, added)))
        # under another key the bounds of the parts mean nothing there: the table is replaced as a whole
        replaced = self._exact and self._view and here and not same and not changes.wanted.selection.keys
        kinds = {
            "added": added.filter(pc.invert(moved)),
            "changed": pa.concat_arrays([*self._changed, added.filter(moved)]),
            "removed": gone if self._exact else gone.filter(pc.is_in(gone, self._gone_in_a_merge())),
        }
        return RecordChanges(
            collection=self._collection.name,
            rows=self._rows,
            added=kinds["added"],
            changed=kinds["changed"],
            deleted=kinds["removed"],
            replaced=_count(self._view, here) if replaced and self._view and here else 0,
            samples=[sample for kind, keys in kinds.items() for sample in self._samples.of(kind, keys)],
            live=self._live_state.digest(),
        )

    def _by_content(self) -> RecordChanges:
        """Count what a merge adds where keys are no identities, and what is taken back of an earlier one."""
        here, view = self._here(), self._view
        tables = (read_whole(view, here, bounds).rows for bounds in view.partition(here)) if view and here else ()
        live = Contents(self._spec, self._changes.chain.digest, (rows for rows in tables if rows.num_columns))
        for part in self._parts():
            if (given := part.load()).num_columns:
                self._rows += given.num_rows
                self._added.append(encoded_keys(live.beyond(given), self._spec))
        return RecordChanges(
            collection=self._collection.name,
            rows=self._rows,
            added=pa.concat_arrays(self._added),
            replaced=min(live.left, len(self._taken_back)),
        )

    def _parts(self) -> Iterator[RestorePart]:
        changes = self._changes
        return changes.chain.parts_of(self._collection, changes.wanted.selection, changes.plan.sources)

    def _gone_in_a_merge(self) -> pa.LargeBinaryArray:
        written = pc.unique(pa.concat_arrays(self._written))
        replaced = [keys.filter(pc.is_in(labels, written)) for keys, labels in self._beside]
        return pa.concat_arrays([self._taken_back, *replaced])

    def _here(self) -> CollectionSpec | None:
        specs = self._view.collections() if self._view is not None else ()
        return next((spec for spec in specs if spec.name == self._spec.name), None)

    def _compare(self, part: RestorePart, here: CollectionSpec | None) -> None:
        given, there = part.load(), self._live(part, here)
        wanted = comparable(given, part, self._changes.chain.digest)
        live = self._index(there, part)
        index = changes_between(live, wanted).index
        keys = index.column(KEY).combine_chunks()
        deleted = index.column(DELETED).combine_chunks()
        put, gone = keys.filter(pc.invert(deleted)), keys.filter(deleted)
        known = pc.is_in(put, live.keys)
        added, changed = put.filter(pc.invert(known)), put.filter(known)
        self._rows += wanted.num_rows
        self._added.append(added)
        self._changed.append(changed)
        self._deleted.append(gone)
        self._live_state.take(live)
        if self._changes.wanted.sampling.records:
            self._samples.take(self._keyed(there, part), self._keyed(given, part), (added, changed, gone))
        if self._in_pieces:
            self._look_at_pieces(given, there, gone)

    def _keyed(self, rows: pa.Table, part: RestorePart) -> tuple[pa.LargeBinaryArray, pa.Table]:
        return (encoded_keys(rows, self._spec), brought_back(rows, part)) if rows.num_columns else (no_keys(), rows)

    def _look_at_pieces(self, given: pa.Table, there: pa.Table, gone: pa.LargeBinaryArray) -> None:
        if given.num_columns:
            self._written.append(pc.unique(self._labels(given)))
        if there.num_columns:
            keys = encoded_keys(there, self._spec)
            beside = pc.is_in(keys, gone)
            self._beside.append((keys.filter(beside), self._labels(there).filter(beside)))

    def _labels(self, rows: pa.Table) -> pa.LargeBinaryArray:
        return encoded_keys(rows, replace(self._spec, key=self._spec.label))

    def _live(self, part: RestorePart, here: CollectionSpec | None) -> pa.Table:
        if self._view is None or here is None:
            return pa.table({})
        rows = part.narrowed(read_whole(self._view, here, part.part.bounds).rows)
        rows = rows.drop_columns([name for name in here.lacking(part.spec) if name in rows.column_names])
        # what the backup did not cover is not deleted
        covered = self._then.covered(self._spec, rows) if rows.num_columns else None
        return rows if covered is None else rows.filter(covered)

    def _index(self, rows: pa.Table, part: RestorePart) -> PartIndex:
        normal = comparable(rows, part, self._changes.chain.digest)
        return PartIndex.of(normal.column(KEY).combine_chunks(), normal.column(DIGEST).combine_chunks())


def comparable(rows: pa.Table, part: RestorePart, digest: RowDigest) -> pa.Table:
    """Normalise rows without the columns that a restore does not bring back, or cannot in this process.

    Args:
        rows: Rows as their source knows them: the collection's columns.
        part: The part that they are in.
        digest: Digests rows under the repository's key.
    """
    if not rows.num_columns:
        return pa.table({KEY: no_keys(), DIGEST: pa.array([], pa.uint64())})
    return to_normal(brought_back(rows, part), part.spec.key, digest)


def brought_back(rows: pa.Table, part: RestorePart) -> pa.Table:
    """Return rows without the columns that a restore does not bring back, or cannot in this process.

    Args:
        rows: Rows as their source knows them: the collection's columns.
        part: The part that they are in.
    """
    left_out = part.chain.beyond_privileges.get(part.collection.source, frozenset()).union(part.spec.tracking)
    return rows.select([name for name in rows.column_names if name not in left_out])
