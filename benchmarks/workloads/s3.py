"""What B1, B2 and B3 share: an S3 server (SeaweedFS), and repositories of both sides on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.bench import Bench
from benchmarks.ours import Lastgood
from benchmarks.peers import Restic
from benchmarks.workloads.files import Files, files
from benchmarks.workloads.pgbench import Accounts
from deployments.demo.storage import running_s3


class S3:
    """A running S3 server.

    Args:
        bench: The session.
        repository: The `repository` of a plan on it.
    """

    def __init__(self, bench: Bench, repository: Mapping[str, object]) -> None:
        self._bench, self._repository = bench, repository
        storage = repository["storage"]
        assert isinstance(storage, dict)
        names = [str(storage[field]) for field in ("key_id_env", "secret_env")]
        key_id, secret = (os.environ[name] for name in names)
        bench.secrets.update(dict(zip(names, (key_id, secret), strict=True)))
        bench.secrets.update(AWS_ACCESS_KEY_ID=key_id, AWS_SECRET_ACCESS_KEY=secret)
        self._endpoint, self._numbers = str(storage["endpoint"]), itertools.count(1)

    def ours(self, name: str, sources: Mapping[str, object]) -> Lastgood:
        """A plan whose repository is on the server, in a new prefix each time it is made."""
        return Lastgood(self._bench, name, sources, repository=self._repository)

    def restic(self, name: str) -> Restic:
        """A restic repository on the server, in a new prefix each time it is made."""
        return Restic(self._bench, name, f"s3:{self._endpoint}/backups/restic-{name}")


@contextmanager
def s3(bench: Bench) -> Iterator[S3]:
    """Start the server; gone afterwards."""
    with running_s3(bench.folder / "s3") as repository:
        yield S3(bench, repository)


def files_on(server: S3, bench: Bench) -> Files:
    """The tree of files of F1, with repositories on the server."""
    local = files(bench)
    ours = server.ours("files-s3", {"tree": {"type": "files", "url": str(local.tree)}})
    return Files(bench, local.tree, ours, server.restic("files"), local.borg)


def accounts_on(server: S3, accounts: Accounts) -> Accounts:
    """The database of P1, with repositories on the server."""
    accounts.ours = server.ours("accounts-s3", {"accounts": {"type": "postgres", "dsn": accounts.dsn}})
    accounts.restic = server.restic("accounts")
    return accounts
