"""Giving keys their new content, and taking others away, so that what somebody writes at the same moment is not lost.

What a key held makes room under a name that nobody knows, in the same transaction in which the new content comes. There
it is compared with what the backup before the restore has, and removed only if that has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from blocks.errors import LastgoodError, Partial, SourceUnavailable
from blocks.sources.redis.net.clients import named, writers
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.redirect import commands_of
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import byte_strings
from blocks.sources.redis.temporary_names import OURS, TEMPORARY, is_left_behind, is_of, is_old, real_name
from blocks.sources.redis.write.filling import Frame
from blocks.sources.redis.write.guard import Guard
from blocks.sources.redis.write.send import Sender, sender_to
from blocks.sources.redis.write.staging import Staging
from blocks.sources.redis.write.temporary_keys import Names

_AT_ONCE, _STEP_KEYS, _NAMED = 1_000, 200_000, 20

Move = tuple[bytes, bytes]
"""A key, and the name under which what it held makes room."""


class Swap:
    """Sends what a restore made ready to one server.

    Args:
        server: The server or cluster that commands are sent to.
        guard: What the backup before the restore has; None where there is none.
    """

    def __init__(self, server: Server | Cluster, guard: Guard | None) -> None:
        self._server, self._guard = server, guard
        self._open: tuple[int, Names, Sequence[Move]] | None = None
        self._building: tuple[int, Names] | None = None
        self.begun = False
        """Whether anything that others see was sent."""
        self.late: dict[bytes, bytes] = {}
        """Keys that were written while they were replaced, with the names under which that is kept."""
        self.left: list[bytes] = []
        """Keys that came while the others were removed, and were left alone."""

    def send(self, number: int, names: Names, frames: Iterator[Frame], private: bool) -> None:
        """Send frames to a database; raises what `Sender.send` does."""
        self._building = None if private else (number, names)
        with sender_to(self._server, number) as sender:
            for payload, count, visible in frames:
                moved = _moved(payload) if visible and names.moving else []
                self.begun = self.begun or (visible and not private)
                self._open = (number, names, moved) if moved else None
                sender.send(payload, count)
                self._settle(sender, number, names, _waiting(moved))
        self._building = None

    def remove(self, number: int, names: Names, keys: Sequence[bytes], private: bool) -> None:
        """Remove keys of a database, or move them aside; raises what `Sender.send` does."""
        with sender_to(self._server, number) as sender:
            for start in range(0, len(keys), _AT_ONCE):
                some = self._not_new(number, keys[start : start + _AT_ONCE])
                self.begun = self.begun or not private
                moved = [(key, name) for key in some if (name := names.moved(key)) is not None]
                waiting = _waiting(moved)
                self._open = (number, names, [(key, names.old(key)) for key in waiting]) if waiting else None
                sender.rename(moved)
                if len(moved) < len(some):
                    going = {key for key, _ in moved}
                    sender.remove(pa.array([key for key in some if key not in going], pa.large_binary()))
                self._settle(sender, number, names, waiting)

    def give_back(self) -> None:
        """After a failure: give back what made room for something that did not come, and remove what was half built."""
        if self._open is not None:
            (number, names, moved), self._open = self._open, None
            with suppress(LastgoodError), sender_to(self._server, number) as sender:
                back = [packed("RENAMENX", name, key) for key, name in moved]
                sender.send(b"".join(back), len(back))
                self._settle(sender, number, names, _waiting(moved))
        if self._building is not None:
            (number, names), self._building = self._building, None
            with suppress(LastgoodError), sender_to(self._server, number) as sender:
                for built in _built(self._server, number, names):
                    sender.remove(pa.array(built, pa.large_binary()))

    def check_late(self) -> None:
        """Say what was written while keys were replaced and removed.

        Raises:
            Partial: Something was.
        """
        said = []
        if self.late:
            some = sorted(self.late.items())[:_NAMED]
            kept = ", ".join(f"{key!r} as {name.decode(errors='replace')}" for key, name in some)
            said.append(f"{named(list(self.late))} written while replaced, and what they held is kept: {kept}")
        if self.left:
            said.append(f"{named(self.left)} written while others were removed, and left alone")
        if said:
            raise Partial(
                f"{self._server} is restored, but {'; '.join(said)}{writers(self._server)}",
                hint="None of it is in the emergency backup. Look at these keys, and stop who writes.",
            )

    def _not_new(self, number: int, keys: Sequence[bytes]) -> Sequence[bytes]:
        """Leave out, and alone, what came since the backup before the restore."""
        if self._guard is None:
            return keys
        new = self._guard.new(self._server, number, keys)
        self.left += sorted(new)
        return [key for key in keys if key not in new]

    def _settle(self, sender: Sender, number: int, names: Names, keys: Sequence[bytes]) -> None:
        """Remove what made room, but what the backup before the restore does not have."""
        if not keys or self._guard is None:
            self._open = None
            return
        late = self._guard.late(number, keys, [names.old(key) for key in keys])
        sender.rename([(names.old(key), names.kept(key)) for key in late])
        self.late |= {key: names.kept(key) for key in late}
        kept = set(late)
        sender.remove(pa.array([names.old(key) for key in keys if key not in kept], pa.large_binary()))
        self._open = None


def sweep(server: Server | Cluster, number: int) -> None:
    """Remove what restores that were killed on this machine had begun to build; what cannot be removed stays."""
    with suppress(LastgoodError), sender_to(server, number) as sender:
        for keys in _left_behind(server, number):
            if gone := [key for key in keys if not is_old(key)]:
                sender.remove(pa.array(gone, pa.large_binary()))


def settle_killed(server: Server | Cluster, number: int, names: Names) -> dict[bytes, bytes]:
    """Clear up what made room in restores that were killed on this machine before they looked at it.

    It is removed where its key holds the same again, as after an undo. Else it may be what somebody wrote right before
    it was replaced, which no backup has: it is kept aside. What cannot be looked at stays.

    Returns:
        The keys, with the names under which that is kept.
    """
    kept: dict[bytes, bytes] = {}
    with suppress(LastgoodError), sender_to(server, number) as sender:
        for found in _left_behind(server, number):
            olds = [key for key in found if is_old(key)]
            for start in range(0, len(olds), _AT_ONCE):
                some = olds[start : start + _AT_ONCE]
                there, held = _read(server, number, [real_name(old) for old in some]), _read(server, number, some)
                same = [old for old in some if held.get(real_name(old)) == there.get(real_name(old))]
                stay = [old for old in some if old not in set(same)]
                sender.rename([(old, names.kept(real_name(old))) for old in stay])
                kept |= {real_name(old): names.kept(real_name(old)) for old in stay}
                sender.remove(pa.array(same, pa.large_binary()))
    return kept


def _left_behind(server: Server | Cluster, number: int) -> Iterator[list[bytes]]:
    for node in server.nodes():
        for keys in node.names_of(number, TEMPORARY + b"*"):
            if left := [key for key in keys if is_left_behind(key)]:
                yield left


def _read(server: Server | Cluster, number: int, keys: Sequence[bytes]) -> dict[bytes, list[str]]:
    """Read keys; return what each holds by the key that it stands for, in one order."""
    rows, _ = server.read(number, pa.array(keys, pa.large_binary()), 0, Guesses())
    found: dict[bytes, list[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(real_name(row.pop("key")), []).append(repr(row))
    return {key: sorted(held) for key, held in found.items()}


def count_there(server: Server | Cluster, number: int, keys: Sequence[bytes]) -> Sequence[bool]:
    """Return for each key whether it is there."""
    with sender_to(server, number) as sender:
        return sender.count(keys)


def check_counts(server: Server | Cluster, staging: Staging) -> None:
    """Make sure that all keys are there that were written and have not expired.

    Raises:
        SourceUnavailable: Some are not; names the first.
    """
    for number, spool in staging.keys.items():
        missing: list[bytes] = []
        for step in spool.steps(_STEP_KEYS):
            keys = byte_strings(spool.between(*step))
            found = count_there(server, number, keys)
            missing += [key for key, is_there in zip(keys, found, strict=True) if not is_there]
        if missing := staging.stay(number, missing):
            raise SourceUnavailable(
                f"{server}: {len(missing)} of the keys that were written to database {number} are not there, "
                f"{missing[0]!r} is the first",
                hint="Somebody removes keys, or the server evicts them.",
            )


def frames_of(path: Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield all frames of a file, which is removed then."""
    yield from frames
    path.unlink()


def _built(server: Server | Cluster, number: int, names: Names) -> Iterator[list[bytes]]:
    """Yield the keys that a restore is building."""
    for node in server.nodes():
        for keys in node.names_of(number, TEMPORARY + b"*"):
            if ours := [key for key in keys if is_of(key, names.owner) and not is_old(key)]:
                yield ours


def _moved(payload: bytes) -> list[Move]:
    """Return the keys whose content makes room for another in some commands, and where it goes."""
    commands = commands_of(payload)
    return [(words[1], words[2]) for words in commands if words[0] == b"RENAME" and words[2].startswith(OURS)]


def _waiting(moved: Sequence[Move]) -> list[bytes]:
    """Return the keys of which what they held waits until it was looked at."""
    return [key for key, name in moved if is_old(name)]
