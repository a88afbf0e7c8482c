"""Trees of files: made, changed, compared. Run as a child: `python -m benchmarks.trees make FOLDER SCALE`."""

from __future__ import annotations

import filecmp
import itertools
import json
import os
import random
import sys
from pathlib import Path

LARGE, SMALL, LARGE_BYTES, BLOCK_BYTES = 128, 20_000, 8 * 1024 * 1024, 64 * 1024
_WORDS = [bytes(random.Random(n).choices(b"abcdefghijklmnopqrstuvwxyz", k=3 + n % 7)) + b" " for n in range(256)]


def make(folder: Path, scale: float) -> None:
    """Make large files, half noise and half words in blocks of 64 KiB, and many small JSON files."""
    for n in range(max(3, round(LARGE * scale))):
        _large(folder / "models" / f"{n % 8}" / f"model-{n:04d}.bin", seed=n)
    for n in range(max(300, round(SMALL * scale))):
        _small(folder / "config" / f"{n % 100:02d}" / f"instrument-{n:05d}.json", seed=n)


def change(folder: Path, seed: int) -> None:
    """Rewrite two large files and two hundred small ones with other content."""
    chance = random.Random(seed)
    for path in chance.sample(sorted(folder.glob("models/*/*")), 2):
        _large(path, seed + 1_000_000)
    for path in chance.sample(sorted(folder.glob("config/*/*")), 200):
        _small(path, seed + 1_000_000)


def _large(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES // (2 * BLOCK_BYTES)):
            file.write(chance.randbytes(BLOCK_BYTES))
            words = b"".join(map(_WORDS.__getitem__, chance.randbytes(BLOCK_BYTES // 4)))
            file.write(words[:BLOCK_BYTES])


def _small(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = [{"price": round(chance.uniform(1, 500), 4), "size": chance.randrange(10_000)} for _ in range(12)]
    path.write_text(json.dumps({"instrument": path.stem, "seed": seed, "enabled": seed % 3 > 0, "levels": levels}))


def differences(one: Path, two: Path) -> list[str]:
    """Name what differs between two trees: content, modes, times of files."""
    found = [sorted(os.path.relpath(os.path.join(t, f), r) for t, _, fs in os.walk(r) for f in fs) for r in (one, two)]
    if found[0] != found[1]:
        return [f"the trees hold other names: {sorted(set(found[0]) ^ set(found[1]))[:5]}"]
    wrong = []
    for name in found[0]:
        a, b = os.path.join(one, name), os.path.join(two, name)
        left, right = os.stat(a), os.stat(b)
        same = (left.st_mode, left.st_mtime_ns) == (right.st_mode, right.st_mtime_ns)
        if not same or not filecmp.cmp(a, b, shallow=False):
            wrong.append(name)
    return wrong


def main(verb: str, *words: str) -> int:
    """Do what the command line says."""
    if verb == "make":
        make(Path(words[0]), float(words[1]))
    elif verb == "change":
        change(Path(words[0]), int(words[1]))
    elif wrong := differences(Path(words[0]), Path(words[1])):
        print(*itertools.islice(wrong, 10), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
