"""Objects of a repository changed at random, of every kind and in every field: named, never wrong rows, never a hang.

Run as `python -m tests.faults.mutations [--count 10000] [--seed 0]`: exit code 1 where one was not found or misnamed.

The repository is in a folder: what is read is the same bytes on every tier, and all that looks at them lies above it.
Fields are changed by who holds the key of the catalogue, and sealed again; bytes by anybody.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.crypto.stream import ObjectContext, ObjectKind, seal, unseal
from blocks.errors import LastgoodError
from blocks.records import BackupStatus
from flows.check import check_repository
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.far import LONG_AFTER, Folder, History
from tests.faults.live_state import PLAN, restored
from tests.faults.tier_faults import at_most

CODES = {2, 6, 7, 8}
"""Wrong settings (of a newer lastgood, say), no such backup, no key that opens it, damage; and without any settings
there is no repository."""
KINDS = ("manifest", "pack", "SHA256SUMS", "verifications", "expired", "locks", "lastgood.json")
SEALED = {
    "manifest": ObjectKind.MANIFEST,
    "verifications": ObjectKind.VERIFICATION,
    "expired": ObjectKind.EXPIRY,
}
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**63, 1e300, "", "x", "../x", "\ud800", [], {}, [[]], {"a": 1})
HANGS_SECONDS = 60


@dataclass
class Mutation:
    """One object, and what it became.

    Attributes:
        by_key: Whether it took the key of the catalogue; who has it can say what is true as well.
    """

    kind: str
    name: str
    how: str
    data: bytes | None
    by_key: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.how}"


class Mutated:
    """Random mutations of one repository by their seeds.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.history = History(Folder(folder / "places"), folder / "history")
        plan = self.history.plan("seed")
        apply_retention(plan, now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)
        self.objects = self.history.place.objects("seed")
        self._repository = plan.repository.unlock(plan.encryption)
        self._config = plan.repository.read_config()
        self.newest = self.history.made[-1].backup_id

    def draw(self, seed: int) -> Mutation:
        """Choose an object and a change of it."""
        chosen = random.Random(f"mutation {seed}")
        kind = KINDS[seed % len(KINDS)]
        name = chosen.choice(sorted(one for one in self.objects if kind in one))
        data = self.objects[name]
        if kind in SEALED and chosen.random() < 0.5:
            how, text = _field(chosen, json.loads(gzip.decompress(self._opened(kind, name))))
            return Mutation(kind, name, how, self._sealed(kind, name, text), by_key=True)
        if kind in ("locks", "lastgood.json") and chosen.random() < 0.7:
            how, text = _field(chosen, json.loads(data))
            return Mutation(kind, name, how, text.encode(), by_key=True)
        how, changed = _bytes(chosen, data, self.objects[chosen.choice(sorted(self.objects))])
        return Mutation(kind, name, how, changed)

    def _context(self, kind: str, name: str) -> ObjectContext:
        parts = name.split("/")
        which = parts[2] if kind != "expired" else parts[-1]
        return ObjectContext(self._repository.repository_id, PLAN, which, SEALED[kind])

    def _opened(self, kind: str, name: str) -> bytes:
        return unseal(self.objects[name], self._repository.keys.catalogue_key, self._context(kind, name))

    def _sealed(self, kind: str, name: str, text: str) -> bytes:
        packed = gzip.compress(text.encode())
        return seal(packed, self._repository.keys.catalogue_key, self._context(kind, name))

    def run(self, seed: int) -> tuple[Mutation, set[str], list[str]]:
        """Change an object; returns what it was, who noticed, and what is wrong with what was said."""
        mutation = self.draw(seed)
        objects = {name: data for name, data in self.objects.items() if name != mutation.name}
        if mutation.data is not None:
            objects[mutation.name] = mutation.data
        if objects == self.objects:
            return mutation, {"nobody: it is what it was"}, []
        prefix = self.history.copy(objects)
        codes = CODES | ({4} if mutation.kind == "lastgood.json" and mutation.data is None else set())
        try:
            with at_most(HANGS_SECONDS):
                said, problems = self._listen(prefix, codes)
        except Exception:
            return mutation, set(), [traceback.format_exc()]
        finally:
            self.history.drop(prefix)
        if not mutation.by_key and not said and not self._harmless(mutation):
            problems.append("nobody noticed")
        words: tuple[str, ...] = (mutation.name, *mutation.name.split("/")[-2:])
        words += ("the repository at",) if mutation.kind == "lastgood.json" else ()
        if not mutation.by_key and "verify" not in said and "restore" in said:
            problems.append(f"verified what cannot be restored: {said['restore']}")
        # what who has the key says instead may be found only by what it contradicts
        if said and not mutation.by_key and not any(word in text for text in said.values() for word in words):
            problems.append(f"nobody named it: {said}")
        return mutation, set(said), problems

    def _harmless(self, mutation: Mutation) -> bool:
        """Whether nothing is said otherwise: settings in other letters, a lease that expires, one proof less."""
        if mutation.kind == "lastgood.json":
            try:
                return bool(type(self._config).model_validate_json(mutation.data or b"") == self._config)
            except ValueError:
                return False
        return mutation.kind == "locks" or (mutation.kind == "verifications" and mutation.data is None)

    def _listen(self, prefix: str, codes: set[int]) -> tuple[dict[str, str], list[str]]:
        plan = self.history.plan(prefix)
        said: dict[str, str] = {}
        problems: list[str] = []
        to = self.history.folder / "back"

        def restore() -> None:
            try:
                if restored(plan, self.newest, to) != self.history.oracles[self.newest]:
                    problems.append("wrong rows came back")
            finally:
                shutil.rmtree(to, ignore_errors=True)

        def verify() -> None:
            result = make_verification(plan, self.newest, deep=False)
            if result.status is not BackupStatus.VERIFIED:
                said["verify"] = "; ".join(result.findings)

        def check() -> None:
            if found := check_repository(plan, read_share=1.0).findings:
                said["check"] = "; ".join(found)

        doing: dict[str, Callable[[], None]] = {"restore": restore, "verify": verify, "check": check}
        for name, work in doing.items():
            try:
                work()
            except LastgoodError as error:
                said[name] = error.message
                if error.exit_code not in codes:
                    problems.append(f"{name} ended with {error.exit_code}: {error.message}")
        return said, problems


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*path, key)
        yield from _places(one, (*path, key))


def _field(chosen: random.Random, record: Any) -> tuple[str, str]:
    """Change, remove or double one field anywhere in a record; returns how, and the record as JSON."""
    path = chosen.choice(list(_places(record)))
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    how = chosen.choice(["value", "value", "near", "gone", "added"])
    if how == "gone":
        del holder[path[-1]]
    elif how == "added" and isinstance(holder, dict):
        holder["an unknown field"] = old
    elif how == "added":
        holder.append(old)
    else:
        holder[path[-1]] = _near(old) if how == "near" else chosen.choice(VALUES)
    where = ".".join(map(str, path))
    return f"{where} {how}", json.dumps(record)


def _near(old: Any) -> Any:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        return old + 1
    if isinstance(old, str):
        return (chr(ord(old[0]) ^ 1) + old[1:]) if old else "0"
    return [old]


def _bytes(chosen: random.Random, data: bytes, other: bytes) -> tuple[str, bytes | None]:
    at = chosen.randrange(len(data))
    end = min(len(data), at + chosen.randrange(1, 40))
    changes: dict[str, Callable[[], bytes | None]] = {
        f"bit of byte {at} flipped": lambda: data[:at] + bytes([data[at] ^ 1 << chosen.randrange(8)]) + data[at + 1 :],
        f"cut off at {at}": lambda: data[:at],
        f"bytes {at} to {end} gone": lambda: data[:at] + data[end:],
        f"bytes {at} to {end} zero": lambda: data[:at] + bytes(end - at) + data[end:],
        f"bytes put in at {at}": lambda: data[:at] + chosen.randbytes(end - at) + data[at:],
        f"random from {at} on": lambda: data[:at] + chosen.randbytes(len(data) - at),
        "another object in its place": lambda: other,
        "bytes added": lambda: data + chosen.randbytes(end - at),
        "gone": lambda: None,
    }
    how = chosen.choice(list(changes))
    return how, changes[how]()


def main() -> int:
    """Try a number of mutations, one for each seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    faults, who = 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="lastgood-mutations-") as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        mutated = Mutated(Path(name))
        for seed in range(given.seed, given.seed + given.count):
            mutation, said, problems = mutated.run(seed)
            who[f"{mutation.kind}: {', '.join(sorted(said)) or 'nobody'}"] += 1
            faults += bool(problems)
            for problem in problems:
                print(f"FAULT seed {seed}, {mutation}: {problem}", flush=True)
    for one, count in sorted(who.items()):
        print(f"{one}: {count}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{given.count} mutations from seed {given.seed}, {faults} faults, {used.ru_utime + used.ru_stime:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
