"""What a restore changes: which collections and records it writes, deletes and leaves alone, found once.

The preview counts this list, the backup before the restore takes what is on it, the room is estimated for it, and the
targets write and delete it: each gets it from here, and none decides for itself what belongs to the restore.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

from blocks.errors import BackupNotFound, ConfigurationError
from blocks.host.passwords import without_password
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, Collection, Part
from blocks.rows.selection import Selection
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreMode, RestoreScope
from flows.pipeline.chain import Chain
from flows.pipeline.hints import nearest
from flows.pipeline.messages import spec_of
from flows.restoring.folders import folder_of
from flows.restoring.request import RestoreRequest, TakenBack


@dataclass(frozen=True)
class SourceChanges:
    """What a restore changes of one source.

    Attributes:
        collections: Those that are written.
        place: Where to; None for the live place.
        everything: Whether an exact restore also deletes the collections that the backup does not hold, as far as plan
            and backup cover them.
        created: Names, within the source, of collections that are dropped: the restore which is taken back has
            created them.
    """

    collections: tuple[Collection, ...]
    place: str | None
    everything: bool
    created: tuple[str, ...]


class ChangeList:
    """The changes of one restore.

    Args:
        plan: What it covers now is the limit of what is written or deleted.
        chain: The backup that is restored, with those it depends on.
        wanted: What is to be restored.

    Attributes:
        sources: The changes of each source that the restore touches, by name.
        notes: What is left as it is although the backup holds it, a sentence each.

    Raises:
        BackupNotFound: The backup, or what the plan covers of it, holds nothing of what one of the globs asks for.
        ConfigurationError: The plan lacks one of the sources, or has another kind of source by its name.
    """

    def __init__(self, plan: BackupPlan, chain: Chain, wanted: RestoreRequest) -> None:
        self.plan, self.chain, self.wanted = plan, chain, wanted
        groups = _by_source(plan, chain, wanted)
        self.notes: list[str] = []
        if wanted.scratch is None:
            groups, self.notes = _without_uncovered(plan, groups, wanted.selection)
        self._takes_back = wanted.takes_back or TakenBack()
        self._whole = _of_whole_sources(chain.target, wanted.selection)
        self.sources: Mapping[str, SourceChanges] = {
            name: SourceChanges(
                collections=tuple(collections),
                place=_place_of(plan.sources[name], name, wanted, len(groups) > 1),
                everything=self._everything(name, collections),
                created=tuple(n.partition("/")[2] for n in self._takes_back.created if n.partition("/")[0] == name),
            )
            for name, collections in groups.items()
        }

    def _everything(self, source: str, collections: list[Collection]) -> bool:
        # that all it holds was chosen is not enough: what has come since was not chosen, and no backup would have it
        held = {c.name for c in self.chain.target.collections if c.source == source}
        return self._whole and {c.name for c in collections} == held

    def of(self, source: str) -> ChangeList:
        """Return the changes of one source alone."""
        alone = copy(self)
        alone.sources = {source: self.sources[source]}
        return alone

    @property
    def everything(self) -> bool:
        """Whether all that plan and backup cover of each source is written or deleted."""
        return all(changes.everything for changes in self.sources.values())

    @property
    def places(self) -> dict[str, str | None]:
        """The place of each source; None for the live one."""
        return {name: changes.place for name, changes in self.sources.items()}

    @property
    def shown_places(self) -> dict[str, str]:
        """The place of each source as people see it."""
        return {name: shown_place(place) for name, place in self.places.items()}

    def touched(self, collection: str) -> Selection | None:
        """Say which records of a collection, by its full name, are written or deleted; None for none of them.

        A collection that is not on the list, of a source that is restored as a whole, is deleted as a whole.
        """
        source, _, name = collection.partition("/")
        changes = self.sources.get(source)
        if changes is None:
            return None
        if changes.everything or name in changes.created:
            return Selection()  # all of it goes, whichever rows were restored
        held = next((c for c in changes.collections if c.name == collection), None)
        if held is None:
            return None
        if self.by_content(held):
            return Selection()  # which rows were there before only all of them tell
        return Selection(keys=self.wanted.selection.keys or held.selected_keys)

    def by_content(self, collection: Collection) -> bool:
        """Whether a merge compares the rows of a collection as wholes."""
        source = self.plan.sources[collection.source]
        return self.wanted.mode is RestoreMode.MERGE and source.merges_by_content(spec_of(collection))

    def scope(self, source: str, in_place: bool) -> RestoreScope:
        """Say to the target of a source what is written and deleted, and for how many bytes there must be room."""
        changes, wanted = self.sources[source], self.wanted
        # no names at all would mean everything
        names = () if changes.everything else tuple(c.name for c in changes.collections) or (f"{source}/",)
        narrowed = {spec_of(c).name: c.selected_keys for c in changes.collections if c.selected_keys}
        if self._takes_back.keys:
            narrowed |= dict.fromkeys(changes.created, self._takes_back.keys)
        return RestoreScope(
            definition=self.chain.target.source(source).definition,
            collections=tuple((spec_of(c), c.rows) for c in changes.collections),
            mode=wanted.mode,
            selection=Selection(names, wanted.selection.keys),
            size_bytes=self._size_bytes(changes),
            narrowed=narrowed,
            plan=self.plan.name,
            in_place=in_place,
            overwrite=wanted.overwrite,
            created=changes.created,
            taken_back=self._takes_back.definitions.get(source, {}),
            keep_going=wanted.keep_going,
        )

    def _size_bytes(self, changes: SourceChanges) -> int:
        """Estimate the rows that are written; 0 where records are chosen by their keys, of which nobody knows yet."""
        if self.wanted.selection.keys:
            return 0
        return sum(self._size_of_part(c, part) for c in changes.collections for part in c.parts)

    def _size_of_part(self, collection: Collection, part: Part) -> int:
        # what was written again and again is there once; a row is taken to be as wide as those of the widest segment
        held = [s for _, _, s in self.chain.segments(collection.name, part.number) if s.upserts]
        widest = max((s.size_bytes / s.upserts for s in held), default=0)
        return min(sum(s.size_bytes for s in held), round(part.rows * widest))


def shown_place(place: str | None) -> str:
    """Write a place for people to see: a password that was given in a URL or a DSN is left out."""
    return "live" if place is None else without_password(place)


def _place_of(source: StateSource, name: str, wanted: RestoreRequest, several: bool) -> str | None:
    if wanted.scratch is not None:
        return wanted.scratch[name]
    if wanted.to is None or not several:
        return wanted.to
    return source.inside(folder_of(wanted.to) / name)


def _of_whole_sources(target: BackupMetadata, selection: Selection) -> bool:
    sources = {c.source for c in target.collections if selection.has_collection(c.name)}
    return target.whole and all(map(selection.has_all_of, sources))


def _by_source(plan: BackupPlan, chain: Chain, wanted: RestoreRequest) -> dict[str, list[Collection]]:
    """Return the selected collections by source; where everything is, also the sources whose state was empty.

    Where a restore is taken back, all sources are among them: what it wrote to may not have been there before.
    """
    everything = wanted.takes_back is not None or (wanted.selection.everything and chain.target.whole)
    groups: dict[str, list[Collection]] = {s.name: [] for s in chain.target.sources} if everything else {}
    for collection in chain.target.collections if wanted.takes_back else _selected(chain, wanted.selection):
        groups.setdefault(collection.source, []).append(collection)
    if missing := sorted(groups.keys() - plan.sources.keys()):
        raise ConfigurationError(
            f"plan {plan.name} has no source {missing[0]}, which backup {chain.target.backup_id} holds",
            hint="Add it to the plan."
            if wanted.takes_back
            else f"Add it to the plan, or select others with --collection (there is {', '.join(plan.sources)}).",
        )
    kinds = {source.name: source.type for source in chain.target.sources}
    for name in groups:
        if (held := kinds[name]) != (now := plan.sources[name].type):
            raise ConfigurationError(
                f"source {name} of plan {plan.name} is of type {now}, and backup {chain.target.backup_id} holds one of "
                f"type {held}",
                hint=f"Restore with a plan whose {name} is what it was, or select others with --collection.",
            )
    return groups


def _selected(chain: Chain, selection: Selection) -> list[Collection]:
    """Return the selected collections of a backup; none where all of an empty state is."""
    for glob in selection.collections:
        if not any(Selection((glob,)).has_collection(c.name) for c in chain.target.collections):
            raise _holds_no(chain, f"collection {glob}{nearest(glob, [c.name for c in chain.target.collections])}")
    found = [c for c in chain.target.collections if selection.has_collection(c.name)]
    if not found and not (selection.everything and chain.target.whole):
        raise _holds_no(chain, "collection")
    return found


def _holds_no(chain: Chain, what: str) -> BackupNotFound:
    held = ", ".join(c.name for c in chain.target.collections) or "nothing"
    return BackupNotFound(f"backup {chain.target.backup_id} holds no {what}", hint=f"It holds {held}.")


def _without_uncovered(
    plan: BackupPlan, groups: Mapping[str, list[Collection]], selection: Selection
) -> tuple[dict[str, list[Collection]], list[str]]:
    """Leave out the collections that the plan does not cover any more; return sentences that name them."""
    kept = {n: [c for c in found if plan.sources[n].covers(spec_of(c))] for n, found in groups.items()}
    names = [c.name for found in kept.values() for c in found]
    for glob in selection.collections:
        if not any(map(Selection((glob,)).has_collection, names)):
            raise BackupNotFound(
                f"plan {plan.name} leaves out all that the collection {glob} is in the backup",
                hint="Nothing was written. Let the plan cover it again, or restore with --to by a plan that does.",
            )
    left = [c.name for n, found in groups.items() for c in found if c not in kept[n]]
    stay = {n: found for n, found in kept.items() if found or not groups[n]}
    if left and not stay:
        raise BackupNotFound(
            f"plan {plan.name} leaves out all that the backup holds: {', '.join(left)}",
            hint="Nothing was written. Let the plan cover it again, or restore with --to by a plan that does.",
        )
    return stay, [f"{name} is left as it is: the plan leaves it out now" for name in left]
