"""Restoring into an RDB file: a private server loads it, takes the keys and saves it; then it replaces the old one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.sources.base import RestoreScope
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.private import RDB, Program, private_server
from blocks.sources.redis.server import Server
from blocks.sources.redis.target import RedisTarget


class RdbTarget(RedisTarget):
    """An RDB file that takes restored keys.

    Args:
        path: The file; it may exist.
        program: The private server to run.
        scope: What is restored.
        databases: The number of the database of each collection, by its name.
        put_off_ms: Added to every expiry, in the scratch restore of a verification.
    """

    def __init__(
        self,
        path: Path,
        program: Program,
        scope: RestoreScope,
        databases: Mapping[str, int],
        put_off_ms: int,
    ) -> None:
        self._path, self._program = path.absolute(), program
        self._building = Path()
        super().__init__(self._private_server, scope, databases, self._saved, put_off_ms, private=True)

    @contextmanager
    def _private_server(self) -> Iterator[Server | Cluster]:
        if not self._path.parent.is_dir():
            raise RestoreRefused(f"there is no folder {self._path.parent}", hint="Create it first.")
        try:
            self._building = Path(tempfile.mkdtemp(prefix=f".{self._path.name}.lastgood-", dir=self._path.parent))
        except OSError as exc:
            raise RestoreRefused(f"{self._path.parent} cannot be written to: {exc.strerror}") from exc
        try:
            if self._path.exists():
                shutil.copyfile(self._path, self._building / RDB)
            with private_server(self._building, self._program) as server:
                yield server
        except OSError as exc:
            raise SourceUnavailable(f"{self._path} cannot be restored: {exc}") from exc
        finally:
            shutil.rmtree(self._building, ignore_errors=True)

    def _saved(self, server: Server | Cluster) -> None:
        assert isinstance(server, Server)
        server.save()
        new = self._building / RDB
        os.chmod(new, 0o600)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(new, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
