"""The folder that the demo lives in; wiped at the start, but only where a marker says that the demo made it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import yaml

from blocks.errors import ConfigurationError
from deployments.demo.guarded import stop_servers

MARKER = ".lastgood-demo"
PLAN = "trading.yaml"
_STATE_HOME = "XDG_STATE_HOME"


class DemoFolder:
    """Names of everything inside of the demo's folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.state = self.path / "state"
        self.plan = self.path / PLAN
        self.prefect = self.path / "prefect"
        self.servers = self.path / "servers"

    @property
    def is_ours(self) -> bool:
        """Whether a demo made this folder."""
        return (self.path / MARKER).is_file()

    def renew(self) -> None:
        """Recreate the folder; what an earlier demo left goes, but not the data of its Prefect server.

        Raises:
            ConfigurationError: Something else is there.
        """
        if self.path.exists() and not self.is_ours and any(self.path.iterdir()):
            raise ConfigurationError(
                f"{self.path} is not empty and no earlier demo made it", hint="Choose another folder with --dir."
            )
        self.stop_servers()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self.path.iterdir():
            if entry.name in (MARKER, self.prefect.name):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (self.path / MARKER).touch()

    def stop_servers(self) -> bool:
        """Stop a Redis and a PostgreSQL that a demo could not stop itself; return whether there were any."""
        return self.is_ours and stop_servers(self.servers)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep what lastgood remembers of repositories in here too; the demo leaves nothing elsewhere."""
        before = os.environ.get(_STATE_HOME)
        os.environ[_STATE_HOME] = str(self.path / "memory")
        try:
            yield
        finally:
            os.environ.pop(_STATE_HOME)
            if before is not None:
                os.environ[_STATE_HOME] = before

    def write_plan(
        self,
        more: Mapping[str, Mapping[str, object]] | None = None,
        repository: Mapping[str, object] | None = None,
    ) -> Path:
        """Write the example plan, adapted: its passphrase is drawn here.

        Args:
            more: Sources to add, by name.
            repository: Where backups are kept, if not in this folder.
        """
        plans = resources.files("deployments") / "plans"
        plan = yaml.safe_load((plans / PLAN).read_text(encoding="utf-8"))
        passphrase = self.path / "secrets" / "passphrase"
        passphrase.parent.mkdir(mode=0o700)
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
        plan["encryption"] = {"credential": {"passphrase_file": "./secrets/passphrase"}}
        plan["sources"] |= {name: dict(source) for name, source in (more or {}).items()}
        plan["repository"] = dict(repository or plan["repository"])
        self.plan.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
        self._copy(["quality/ledger.json"])
        return self.plan

    def _copy(self, names: Sequence[str]) -> None:
        plans = resources.files("deployments") / "plans"
        for name in names:
            target = self.path / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((plans / name).read_bytes())
