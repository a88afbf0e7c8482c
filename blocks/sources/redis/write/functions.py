"""Bringing libraries of functions back: on each server as a whole or not at all, before any key is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import hiredis

from blocks.errors import LastgoodError, RestoreRefused
from blocks.sources.redis.cli_lines import cli_line
from blocks.sources.redis.coverage import patterns_of
from blocks.sources.redis.functions import Library, kept_libraries, read_libraries
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rdb.payload import functions_payload
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope, Script

_NEEDED = "+function|list +function|restore +function|delete"


@dataclass(frozen=True)
class Wanted:
    """What a restore does to the libraries of a server.

    Attributes:
        libraries: Those that it brings, by name.
        removes: Tells of a library that is not among them whether it goes.
    """

    libraries: Mapping[str, Library]
    removes: Callable[[str], bool]


@dataclass(frozen=True)
class _Difference:
    """What a server lacks or has beyond what it shall; `stays` names what of its libraries is not removed."""

    loaded: Sequence[Library]
    replaced: Sequence[str] = ()
    removed: Sequence[str] = ()
    stays: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What came of the libraries: sentences for the user, and what was left out."""

    notes: tuple[str, ...] = ()
    left: tuple[NotRebuilt, ...] = ()


def wanted_of(scope: RestoreScope, one_database: bool) -> Wanted | None:
    """Say what a restore does to libraries; None where it leaves them alone.

    Args:
        scope: What is restored.
        one_database: Whether the place is one database of a server, of which the functions are not.
    """
    kept = kept_libraries(scope.definition)
    if kept is None or one_database or not scope.selection.everything:
        return None
    if scope.mode is RestoreMode.MERGE:
        if not scope.taken_back:
            return Wanted(kept, lambda name: False)
        added = kept_libraries(scope.taken_back) or {}
        return Wanted({name: kept[name] for name in kept if name in added}, lambda name: name in added)
    partial = bool(scope.definition.get("narrowed")) or patterns_of(scope.definition) != ["*"]
    # elsewhere they are of others, and there is nowhere to keep them aside
    return Wanted(kept, lambda name: scope.in_place and not partial)


def preview_of(server: Server | Cluster, wanted: Wanted) -> Iterator[str]:
    """Yield what will be done to the libraries of a server, or why not."""
    for node in server.nodes():
        difference = _difference(node, wanted)
        if difference is None:
            continue
        if isinstance(difference, str):
            yield difference
            continue
        new = [each.name for each in difference.loaded if each.name not in difference.replaced]
        told = [("loaded", new), ("replaced", difference.replaced), ("removed", difference.removed)]
        done = [f"{', '.join(sorted(names))} {'are' if names[1:] else 'is'} {verb}" for verb, names in told if names]
        yield f"Of the libraries of functions of {node}, {'; '.join(done)}."


def restore_libraries(server: Server | Cluster, wanted: Wanted, keep_going: bool, begun: Callable[[], None]) -> Outcome:
    """Bring the libraries back.

    Args:
        server: The server, or the cluster each master of which gets them.
        wanted: What is done.
        keep_going: Whether libraries that a server refuses are left out.
        begun: Called before the first change.

    Raises:
        RestoreRefused: A server refuses them; it holds what it held.
    """
    notes, left = list[str](), dict[str, NotRebuilt]()
    for node in server.nodes():
        difference = _difference(node, wanted)
        if difference is None:
            continue
        if isinstance(difference, str):
            notes.append(difference)
            continue
        error = _bring(node, difference, wanted, begun)
        if error is None:
            continue
        if not keep_going:
            names = ", ".join(each.name for each in difference.loaded)
            raise RestoreRefused(
                f"{node} does not take the libraries of functions {names}: {error}",
                hint="--keep-going restores all else; or remove the library that has functions of the same names.",
            )
        for each in difference.loaded:
            if said := _bring(node, _Difference([each]), wanted, begun):
                name = f"library of functions {each.name}"
                lines = cli_line("ECHO", f"{name}: {said}"), cli_line("FUNCTION", "LOAD", "REPLACE", each.code)
                left[each.name] = NotRebuilt(name, said, "\n".join(lines), Script.REDIS_CLI)
    return Outcome(tuple(notes), tuple(left.values()))


def _probed(node: Server) -> str:
    """Ask whether functions may be restored, in a transaction that is never executed."""
    connection = node.open()
    try:
        connection.call("MULTI")
        replies = connection.ask(packed("FUNCTION", "RESTORE", "", "REPLACE") + packed("FUNCTION", "DELETE", "x"), 2)
    finally:
        connection.close()
    return next((str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)), "")


def _difference(node: Server, wanted: Wanted) -> _Difference | str | None:
    """Compare what a server holds with what it shall.

    Returns:
        None where that is the same; a sentence where its libraries cannot be looked at or brought.
    """
    found = read_libraries(node)
    there = {} if isinstance(found, str) else {each.name: each for each in found}
    if not wanted.libraries and not there:
        return None
    if said := found if isinstance(found, str) else _probed(node):
        return f"The libraries of functions of {node} are left as they are ({said}); to restore them takes {_NEEDED}."
    loaded = [each for name, each in sorted(wanted.libraries.items()) if there.get(name) != each]
    replaced = [each.name for each in loaded if each.name in there]
    removed = [name for name in sorted(there) if name not in wanted.libraries and wanted.removes(name)]
    stays = frozenset(there).difference(removed)
    return _Difference(loaded, replaced, removed, stays) if loaded or removed else None


def _bring(node: Server, difference: _Difference, wanted: Wanted, begun: Callable[[], None]) -> str | None:
    """Bring libraries and remove others; return what the server says where it refuses and holds what it held."""
    if difference.removed and difference.stays <= wanted.libraries.keys():
        payload = functions_payload([each.code for each in wanted.libraries.values()])
        commands = [packed("FUNCTION", "RESTORE", payload, "FLUSH")]
    else:
        commands = [packed("FUNCTION", "DELETE", name) for name in difference.removed]
        if difference.loaded:
            payload = functions_payload([each.code for each in difference.loaded])
            commands.insert(0, packed("FUNCTION", "RESTORE", payload, "REPLACE"))
    with node.connection() as connection:
        for command in commands:
            try:
                [reply] = connection.ask(command, 1)
            except LastgoodError:  # it may have been done
                begun()
                raise
            if isinstance(reply, hiredis.ReplyError):
                return str(reply)
            begun()
    return None
