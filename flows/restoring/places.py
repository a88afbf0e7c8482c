"""One check of places for all commands: sources, targets, repository, plan and keys, compared in every pair.

docs/safety.md says in a table what holds for each pair. Nothing is written before these checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.host.leftovers import temporary_folder
from blocks.host.places import Location, inside, resolved
from blocks.plan.plan import BackupPlan
from blocks.repository.rollback_guard import memory_folder
from blocks.sources.source import StateSource
from blocks.storage.bucket_urls import bucket_location, is_bucket
from flows.reporting.journal_files import chosen_folder


def settle_places(plan: BackupPlan) -> BackupPlan:
    """Compare all places of a plan, and give each source the places inside of it that are not its own.

    Returns:
        The plan, whose sources leave out the repository and each other, and never take back its own files.

    Raises:
        ConfigurationError: Two sources are one place, or a source is the repository.
    """
    kinds = Counter(source.type for source in plan.sources.values())
    # a server is asked only where another source could be the same place: that costs a connection
    locations = {n: s.location() for n, s in plan.sources.items() if s.local or kinds[s.type] > 1}
    for (one, here), (other, there) in combinations(locations.items(), 2):
        if here.same(there) and (not here.part or not there.part or here.part == there.part):
            raise ConfigurationError(
                f"sources {one} and {other} of plan {plan.name} are one place: {there.shown}",
                hint="Take one of them out of the plan, or let each name what the other leaves out.",
            )
        # of folders the outer one leaves out what is the other's
        for outer, inner in ((here, there), (there, here)):
            if outer.server and outer.holds(inner) and not outer.part:
                raise ConfigurationError(
                    f"sources {one} and {other} of plan {plan.name} share objects: {inner.shown} is in {outer.shown}",
                    hint="Give them prefixes beside each other, or `exclude` the inner one from the outer one.",
                )
    for name, location in locations.items():
        folder = plan.repository.folder
        if folder is not None and any(resolved(path) == resolved(folder) for path in location.paths):
            raise ConfigurationError(
                f"source {name} of plan {plan.name} is its own repository, {plan.repository.url}",
                hint="Give the repository or the source another place.",
            )
        if _overlaps_repository(plan, location):
            raise ConfigurationError(
                f"source {name} of plan {plan.name}, {location.shown}, and its own repository, {plan.repository.url}, "
                "are in one another",
                hint="Give the repository or the source another bucket, or another prefix.",
            )
    return plan.model_copy(update={"sources": dict(_settled(plan, locations))})


def _settled(plan: BackupPlan, locations: Mapping[str, Location]) -> Iterator[tuple[str, StateSource]]:
    for name, source in plan.sources.items():
        here = locations.get(name)
        if here is None or not here.tree:
            yield name, source
            continue
        folder = here.paths[0]
        others = [p for n, there in locations.items() if n != name and not there.same(here) for p in there.paths]
        own = [there] if (there := plan.repository.folder) is not None else []
        left_out = [path for path in [*own, *_remembered(), *others] if inside(path, folder)]
        protected = [path for path in [*plan.own_files, *_temporary_inside(folder)] if inside(path, folder)]
        yield name, source.around(left_out, protected)


def _remembered() -> list[Path]:
    """Return where this machine remembers: that is written to while it is restored, and must never be what it was."""
    found = [memory_folder(), chosen_folder()]
    return [folder for folder in found if folder is not None]


def _temporary_inside(folder: Path) -> list[Path]:
    """Return the folder for temporary data where it lies in another one: the next command needs it, an undo perhaps."""
    with suppress(ConfigurationError):
        if resolved(found := temporary_folder()) != resolved(folder):
            return [found]
    return []


def check_targets(plan: BackupPlan, places: Mapping[str, str | None]) -> set[str]:
    """Compare the places that a restore would write to with all others, and with each other.

    Args:
        plan: With settled places.
        places: For each source to be restored the place, or None for the live one.

    Returns:
        Names of the sources that are restored in place, however the place was spelled.

    Raises:
        RestoreRefused: A target is on, in or around something that it would destroy.
    """
    live = {name: source.location() for name, source in plan.sources.items()}
    targets = {name: plan.sources[name].location(to) if to else live[name] for name, to in places.items()}
    in_place = {name for name, to in places.items() if to is None or _is_live(targets[name], live[name])}
    for name, target in targets.items():
        _check_repository(plan, name, target, name in in_place)
        _check_own_files(plan, name, target, name in in_place)
        if name not in in_place:
            _check_temporary(name, target)
        for other, location in live.items():
            if name not in in_place or other != name:
                _check_source(plan, name, target, other, location, name in in_place)
    for (one, here), (other, there) in combinations(targets.items(), 2):
        if {one, other} <= in_place:
            _check_one_file(one, here, other, there)
            continue
        if here.same(there) or here.holds(there) or there.holds(here):
            raise RestoreRefused(
                f"sources {one} and {other} would be restored onto each other: {here.shown} and {there.shown}",
                hint="Restore them one by one with --collection, each to a place of its own.",
            )
    return in_place


def check_output(plan: BackupPlan, path: Path) -> None:
    """Refuse to write what is looked at into the repository, or into live state, which the next backup would take.

    Args:
        plan: The plan.
        path: The file or folder that is to be written.

    Raises:
        ConfigurationError: It lies in one of them; nothing was written.
    """
    folder = plan.repository.folder
    if folder is not None and inside(path, folder):
        raise ConfigurationError(
            f"{path} is in the repository of plan {plan.name}, {folder}", hint="Name a place beside the repository."
        )
    for name, source in plan.sources.items():
        if not source.local:
            continue
        location = source.location()
        within = location.tree and inside(path, location.paths[0])
        if within or any(resolved(path) == resolved(own) for own in location.paths):
            raise ConfigurationError(
                f"{path} is in the live state of source {name}, {location.shown}", hint="Name a place beside it."
            )


def _check_one_file(one: str, here: Location, other: str, there: Location) -> None:
    """Refuse to restore two sources of one file at once: one would wait for the other, or replace what that wrote."""
    if here.paths and not here.tree and not there.tree and here.same(there):
        raise RestoreRefused(
            f"sources {one} and {other} are parts of one file, {here.shown}, and only one of them at a time can be "
            "restored to it",
            hint=f"Restore them one by one: --collection '{one}/*', then --collection '{other}/*'.",
        )


def _is_live(target: Location, live: Location) -> bool:
    """Whether a target is what is restored in place, and not only a part of it, such as a database's own log."""
    mains = [replace(location, paths=location.paths[:1]) for location in (target, live)]
    return target.same(live) and mains[0].same(mains[1])


def _overlaps_repository(plan: BackupPlan, location: Location) -> bool:
    """Whether a place is in the bucket of the repository, and one of them within the other."""
    if not location.server or not is_bucket(plan.repository.url):
        return False
    repository = bucket_location(plan.repository.url, plan.repository.storage)
    return location.same(repository) or location.holds(repository) or repository.holds(location)


def _check_repository(plan: BackupPlan, name: str, target: Location, live: bool) -> None:
    if _overlaps_repository(plan, target):
        raise RestoreRefused(
            f"{name} would be restored into or around the repository {plan.repository.url}: {target.shown}",
            hint="Name a place beside the repository with --to.",
        )
    folder = plan.repository.folder
    if folder is None:
        return
    within = [path for path in target.paths if inside(path, folder)]
    around = target.tree and inside(folder, target.paths[0])
    if within or (around and not live):  # a live folder leaves the repository out, when it is restored too
        raise RestoreRefused(
            f"{name} would be restored {'into' if within else 'around'} the repository {folder}: {target.shown}",
            hint="Name a place beside the repository with --to.",
        )


def _check_own_files(plan: BackupPlan, name: str, target: Location, live: bool) -> None:
    for path in plan.own_files:
        on = any(resolved(path) == resolved(own) for own in target.paths)
        around = target.tree and not live and inside(path, target.paths[0])
        if on or around:
            raise RestoreRefused(
                f"{name} would be restored {'over' if on else 'around'} {path}, which belongs to plan {plan.name}",
                hint="Name another place with --to.",
            )


def _check_temporary(name: str, target: Location) -> None:
    with suppress(ConfigurationError):  # who needs it says so
        folder = temporary_folder()
        if target.tree and inside(folder, target.paths[0]):
            raise RestoreRefused(
                f"{name} would be restored around {folder}, where temporary data of this and other runs is",
                hint="Name another place with --to, or set TMPDIR to another folder.",
            )


def _check_source(plan: BackupPlan, name: str, target: Location, other: str, location: Location, live: bool) -> None:
    if target.same(location):
        if live and target.part and location.part:  # each keeps to its own part of one place
            return
        word = "over"
    elif target.holds(location) and not live:
        word = "around"
    elif location.holds(target) and not live:
        word = "into"
    else:
        return
    raise RestoreRefused(
        f"{name} would be restored {word} the live state of source {other}: {location.shown}",
        hint="Name another place with --to; without --to each source is restored where it lives.",
    )
