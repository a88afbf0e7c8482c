"""lastgood's side of each comparison, as its user types it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.bench import Bench, tree_bytes
from benchmarks.measure import Run

_MAIN = "from lastgood import main; raise SystemExit(main())"


class Lastgood:
    """One plan with its repository.

    Args:
        bench: The session.
        name: Name of the plan and its files.
        sources: The plan's sources.
        quality: Files with quality suites.
        repository: The `repository` of the plan, if it is not a folder; its `url` gets a number that counts up.
    """

    def __init__(
        self,
        bench: Bench,
        name: str,
        sources: Mapping[str, object],
        quality: tuple[str, ...] = (),
        repository: Mapping[str, object] | None = None,
    ) -> None:
        self._bench, self._remote, self._made = bench, repository, 0
        self.name, self.repository = name, bench.folder / f"lastgood-{name}"
        self.plan = bench.folder / f"{name}.yaml"
        self._content: dict[str, object] = {
            "name": name,
            "sources": sources,
            "repository": {"url": str(self.repository)},
            "encryption": {"credential": {"passphrase_env": "LASTGOOD_PASSPHRASE"}},
            "quality": list(quality),
        }
        self._write()

    def _write(self) -> None:
        if self._remote is not None:
            self._made += 1
            self._content["repository"] = {**self._remote, "url": f"{self._remote['url']}-{self.name}-{self._made}"}
        self.plan.write_text(json.dumps(self._content))  # JSON is YAML

    def __call__(self, command: str, *words: str, **env: str) -> Run:
        """Run a command of the plan."""
        script = Path(sys.executable).with_name("lastgood")
        start = [str(script)] if script.exists() else [sys.executable, "-c", _MAIN]
        return self._bench.run([*start, command, str(self.plan), *words], env=env)

    def init(self) -> None:
        """Make a new repository."""
        shutil.rmtree(self.repository, ignore_errors=True)
        self._write()
        self("init")

    def backup(self, kind: str) -> Run:
        """Make a backup without a server."""
        return self("backup", "--type", kind, "--no-server")

    def restore(self, to: Path, *words: str) -> Run:
        """Restore the latest backup to another place."""
        return self("restore", "latest", "--to", str(to), "--mode", "exact", "--yes", "--no-server", *words)

    def stored_bytes(self) -> int:
        """Bytes in the repository."""
        return tree_bytes(self.repository)
