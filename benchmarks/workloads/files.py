"""The tree of files that F1, F2, F3 and C1 are about, and those who back it up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, tree_bytes
from benchmarks.ours import Lastgood
from benchmarks.peers import Borg, Restic


@dataclass(frozen=True)
class Files:
    """A tree, and a repository of each contestant."""

    bench: Bench
    tree: Path
    ours: Lastgood
    restic: Restic
    borg: Borg

    @property
    def size(self) -> str:
        """Describe the tree."""
        count = sum(1 for path in self.tree.rglob("*") if path.is_file())
        return f"{count:,} files, {tree_bytes(self.tree) / 1e9:.2f} GB"

    def fill(self) -> None:
        """Recreate every repository, with one full backup."""
        for one in (self.ours, self.restic, self.borg):
            one.init()
        self.ours.backup("full")
        self.restic.backup(self.tree)
        self.borg.backup(self.tree)

    def check_restores(self, notes: list[str]) -> None:
        """Restore the newest backup of each and compare it with the tree; any difference is an error."""
        restores: dict[str, Callable[[Path], object]] = {
            "ours": self.ours.restore,
            "restic": self.restic.restore,
            "borg": self.borg.restore,
        }
        for name, restore in restores.items():
            place = self.bench.fresh("restored")
            restore(place)
            self.compare(place)
            shutil.rmtree(place)
            self.bench.say(f"  {name} restored an equal tree")
        notes.append("All three restored trees equal to the original in names, content, modes and times.")

    def compare(self, place: Path) -> None:
        """Compare a restored tree with the original."""
        self.bench.make("trees", "compare", self.tree, place)

    def places(self, name: str) -> Places:
        """Return where one contestant restores to."""
        return Places(self.bench.folder / f"restored-{name}")


@dataclass
class Places:
    """Folders to restore to, a new one each time.

    None is removed while others are measured: for minutes ext4 does not use the inodes of deleted files again, and
    passes over all of them whenever it creates a file beside where they were.
    """

    folder: Path
    count: int = 0

    def new(self) -> Path:
        """Return a folder that never was there."""
        self.folder.mkdir(exist_ok=True)
        self.count += 1
        return self.last

    @property
    def last(self) -> Path:
        """The folder that was restored to last."""
        return self.folder / str(self.count)


def files(bench: Bench) -> Files:
    """Make the tree, or find it where an earlier workload of the session made it."""
    tree = bench.folder / "tree"
    if not tree.exists():
        bench.say("  making the tree of files")
        bench.make("trees", "make", tree, bench.scale)
    ours = Lastgood(bench, "files", {"tree": {"type": "files", "url": str(tree)}})
    return Files(bench, tree, ours, Restic(bench, "files"), Borg(bench, "files"))
