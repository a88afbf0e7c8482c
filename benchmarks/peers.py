"""The peers, each with its best honest settings: zstd at its default level, encryption on."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.bench import Bench, need, tree_bytes
from benchmarks.measure import Run


class Restic:
    """A restic repository (zstd by default since version 0.14)."""

    def __init__(self, bench: Bench, name: str) -> None:
        need("restic", "restic")
        self._bench, self.repository = bench, bench.folder / f"restic-{name}"

    def __call__(self, *words: str, cwd: Path | None = None) -> Run:
        """Run a command."""
        return self._bench.run(["restic", "--repo", str(self.repository), *words], cwd)

    def init(self) -> None:
        """Make a new repository."""
        shutil.rmtree(self.repository, ignore_errors=True)
        self("init")

    def backup(self, tree: Path) -> Run:
        """Back up a tree."""
        return self("backup", ".", cwd=tree)

    def restore(self, to: Path) -> Run:
        """Restore the latest snapshot."""
        return self("restore", "latest", "--target", str(to))

    def stored_bytes(self) -> int:
        """Bytes in the repository."""
        return tree_bytes(self.repository)


class Borg:
    """A borg repository; zstd has to be asked for."""

    def __init__(self, bench: Bench, name: str) -> None:
        need("borg", "borgbackup")
        self._bench, self.repository = bench, bench.folder / f"borg-{name}"
        self._number = 0

    def init(self) -> None:
        """Make a new repository."""
        shutil.rmtree(self.repository, ignore_errors=True)
        self._bench.run(["borg", "init", "--encryption=repokey-blake2", str(self.repository)])

    def backup(self, tree: Path) -> Run:
        """Back up a tree."""
        self._number += 1
        archive = f"{self.repository}::a{self._number}"
        return self._bench.run(["borg", "create", "--compression", "zstd", archive, "."], tree)

    def restore(self, to: Path) -> Run:
        """Restore the latest archive."""
        to.mkdir()
        return self._bench.run(["borg", "extract", f"{self.repository}::a{self._number}"], to)

    def check(self) -> Run:
        """Read and check every stored byte."""
        return self._bench.run(["borg", "check", "--verify-data", str(self.repository)])

    def stored_bytes(self) -> int:
        """Bytes in the repository."""
        return tree_bytes(self.repository)
