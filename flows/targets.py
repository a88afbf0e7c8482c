"""The targets of one restore: one for each source, all committed or all aborted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import BackupNotFound, ConfigurationError, LastgoodError, Partial
from blocks.manifest import Collection
from blocks.plan import BackupPlan
from blocks.selection import Selection
from blocks.sources.base import RestoreMode, RestoreScope, StateSource, Target
from flows.chain import Chain
from flows.parcel import RestorePart, spec_of
from flows.results import CollectionResult, RestoreResult


@dataclass
class Rescue:
    """The emergency backup before a restore: its id, or why there is none."""

    backup_id: str | None
    notes: list[str]


class Targets:
    """Where the parts of one restore are written."""

    def __init__(self, plan: BackupPlan, chain: Chain, mode: RestoreMode, places: dict[str, str]) -> None:
        self._plan, self._chain, self._mode, self._places = plan, chain, mode, places
        self._targets: dict[str, Target] = {}
        self._rows: dict[str, int] = {}
        self.notes: list[str] = []
        self.rescue: Rescue | None = None

    @property
    def sources(self) -> list[str]:
        """Names of the sources that are written to."""
        return list(self._targets)

    def add(self, source: str, target: Target, collections: Sequence[Collection]) -> None:
        """Take the target of a source's collections."""
        self._targets[source] = target
        self._rows.update(dict.fromkeys((c.name for c in collections), 0))

    def of(self, part: RestorePart) -> Target:
        """Return the target of a part."""
        return self._targets[part.collection.source]

    def done(self, part: RestorePart, rows: int) -> None:
        """Count what was written."""
        self._rows[part.collection.name] += rows

    def preflight(self) -> None:
        """Let every target look before the first write to any of them."""
        for target in self._targets.values():
            self.notes += target.preflight()

    def begin(self) -> None:
        """Let every target begin what the first rows would wait for."""
        for target in self._targets.values():
            target.begin()

    def commit(self) -> None:
        """Make everything live.

        Raises:
            Partial: A later target failed after an earlier one was committed; both are named.
        """
        committed: list[str] = []
        for source, target in self._targets.items():
            try:
                target.commit()
            except LastgoodError as exc:
                if not committed:
                    raise
                raise Partial(
                    f"{', '.join(committed)} restored, but {source} failed: {exc.message}",
                    hint=self._undo() or exc.hint,
                ) from exc
            committed.append(source)
            self.notes += target.notes
        self._targets = {}

    def abort(self) -> None:
        """Leave every target that is not committed as it was."""
        for target in self._targets.values():
            target.abort()

    def _undo(self) -> str | None:
        if self.rescue is None or self.rescue.backup_id is None:
            return None
        return f"lastgood restore PLAN {self.rescue.backup_id} --mode exact --yes"

    def result(self, started: float) -> RestoreResult:
        """Sum up."""
        target = self._chain.target
        return RestoreResult(
            plan=self._plan.name,
            backup_id=target.backup_id,
            timestamp=target.timestamp,
            mode=self._mode,
            collections=[CollectionResult(collection=name, rows=rows) for name, rows in self._rows.items()],
            places=self._places,
            rescue_id=self.rescue.backup_id if self.rescue else None,
            undo=self._undo(),
            notes=self.notes + (self.rescue.notes if self.rescue else []),
            seconds=round(time.monotonic() - started, 3),
        )


def place_of(source: StateSource, name: str, to: str | None, several: bool, make: bool = True) -> str | None:
    """Name the place a source is restored to: None for the live one; `make` creates the folder above it."""
    if to is None or not several:
        return to
    folder = Path(to).absolute() / name
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    return source.inside(folder)


def shown_place(place: str | None) -> str:
    """Write a place for people to see: a password that was given in a URL or a DSN is left out."""
    if place is None:
        return "live"
    hidden = re.sub(r"(://[^/@:]*):[^/]*@", r"\1@", place)
    return re.sub(r"(?i)\b((?:ssl)?password)=('(?:[^'\\]|\\.)*'|[^\s&]*)", r"\1=***", hidden)


def selected(chain: Chain, selection: Selection) -> list[Collection]:
    """Return the selected collections of a backup; none where all of an empty state is.

    Raises:
        BackupNotFound: It holds none of them.
    """
    found = [c for c in chain.target.collections if selection.has_collection(c.name)]
    if not found and not (selection.everything and chain.target.whole):
        held = ", ".join(c.name for c in chain.target.collections) or "nothing"
        raise BackupNotFound(
            f"backup {chain.target.backup_id} holds no collection {' or '.join(selection.collections)}".rstrip(),
            hint=f"It holds {held}.",
        )
    return found


def by_source(plan: BackupPlan, chain: Chain, selection: Selection) -> dict[str, list[Collection]]:
    """Return the selected collections by source; where everything is, also the sources whose state was empty.

    Raises:
        ConfigurationError: The plan lacks one of the sources.
    """
    everything = selection.everything and chain.target.whole
    groups: dict[str, list[Collection]] = {s.name: [] for s in chain.target.sources} if everything else {}
    for collection in selected(chain, selection):
        groups.setdefault(collection.source, []).append(collection)
    if missing := sorted(groups.keys() - plan.sources.keys()):
        raise ConfigurationError(
            f"plan {plan.name} has no source {missing[0]}, which backup {chain.target.backup_id} holds",
            hint=f"Add it to the plan, or select others with --collection (there is {', '.join(plan.sources)}).",
        )
    return groups


@contextmanager
def open_targets(
    plan: BackupPlan, chain: Chain, selection: Selection, to: str | dict[str, str] | None, mode: RestoreMode
) -> Iterator[Targets]:
    """Prepare and check every target; abort them all where the restore does not come to its end.

    `to` is a place as a person gives it, or the place of each source by name.
    """
    groups = by_source(plan, chain, selection)
    places = {s: to[s] if isinstance(to, dict) else place_of(plan.sources[s], s, to, len(groups) > 1) for s in groups}
    targets = Targets(plan, chain, mode, {s: shown_place(place) for s, place in places.items()})
    for name, collections in groups.items():
        scope = _scope(chain, name, collections, selection, mode)
        targets.add(name, plan.sources[name].target(scope, places[name]), collections)
    try:
        targets.preflight()
        yield targets
    finally:
        targets.abort()


def _scope(
    chain: Chain,
    source: str,
    collections: Sequence[Collection],
    selection: Selection,
    mode: RestoreMode,
) -> RestoreScope:
    target = chain.target
    of_source = {c.name for c in target.collections if c.source == source}
    whole = target.whole and not selection.keys and {c.name for c in collections} == of_source
    names = () if whole else tuple(c.name for c in collections)
    segments = [s for c in collections for part in c.parts for _, _, s in chain.segments(c.name, part.number)]
    return RestoreScope(
        definition=next(s.definition for s in target.sources if s.name == source),
        collections=tuple((spec_of(c), c.rows) for c in collections),
        mode=mode,
        selection=Selection(names, selection.keys),
        size_bytes=sum(s.size_bytes for s in segments),
        narrowed={spec_of(c).name: c.selected_keys for c in collections if c.selected_keys},
    )
