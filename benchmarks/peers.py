"""The peers, each with its best honest settings: zstd at its default level, encryption on."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.bench import PASSPHRASE, Bench, need, tree_bytes
from benchmarks.measure import Run


class Restic:
    """A restic repository (zstd by default since version 0.14).

    Args:
        bench: The session.
        name: Of its folder.
        url: Where it is instead, with a number after it that counts up.
    """

    def __init__(self, bench: Bench, name: str, url: str | None = None) -> None:
        need("restic", "restic")
        self._bench, self._url, self._made = bench, url, 0
        self.repository: Path | str = url or bench.folder / f"restic-{name}"

    def __call__(self, *words: str, cwd: Path | None = None) -> Run:
        """Run a command."""
        return self._bench.run(["restic", "--repo", str(self.repository), *words], cwd)

    def init(self) -> None:
        """Make a new repository."""
        if self._url is None:
            shutil.rmtree(self.repository, ignore_errors=True)
        else:
            self._made += 1
            self.repository = f"{self._url}-{self._made}"
        self("init")

    def backup(self, tree: Path) -> Run:
        """Back up a tree."""
        return self("backup", ".", cwd=tree)

    def restore(self, to: Path) -> Run:
        """Restore the latest snapshot."""
        return self("restore", "latest", "--target", str(to))

    def stored_bytes(self) -> int:
        """Bytes in the repository, which is a folder."""
        return tree_bytes(Path(self.repository))


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


class PgBackRest:
    """A pgBackRest repository of a whole PostgreSQL cluster, zstd at level 1 in two processes, encrypted.

    Files of the cluster belong to the server's account, so pgBackRest runs as that.

    Args:
        bench: The session.
        data: The cluster's data directory.
        socket: The folder of its socket.
        port: Its port.
        account: Who the server runs as; None for ourselves.
    """

    def __init__(self, bench: Bench, data: Path, socket: Path, port: int, account: str | None) -> None:
        need("pgbackrest", "pgbackrest")
        # the session's folder is for its owner only
        self._bench, self.repository, self._account = bench, socket / "pgbackrest", account
        places = {"repo1-path": "", "log-path": "log", "lock-path": "lock"}
        self._options = [f"--{name}={self.repository / folder}" for name, folder in places.items()]
        self._options += ["--stanza=main", f"--pg1-path={data}", f"--pg1-socket-path={socket}", f"--pg1-port={port}"]
        self._options += ["--pg1-user=postgres", "--repo1-cipher-type=aes-256-cbc"]

    def __call__(self, command: str, *words: str) -> Run:
        """Run a command."""
        who = ["runuser", "-u", self._account, "--"] if self._account else []
        secret = {"PGBACKREST_REPO1_CIPHER_PASS": PASSPHRASE}
        return self._bench.run([*who, "pgbackrest", *self._options, *words, command], self.repository.parent, secret)

    def init(self) -> None:
        """Make a new repository."""
        shutil.rmtree(self.repository, ignore_errors=True)
        self.repository.mkdir()
        if self._account:
            shutil.chown(self.repository, self._account)
        self("stanza-create")

    def backup(self, kind: str) -> Run:
        """Back up; no write-ahead log is archived, and it is not waited for."""
        options = ["--compress-type=zst", "--compress-level=1", "--process-max=2", "--start-fast"]
        return self("backup", f"--type={kind}", *options, "--no-archive-check")

    def stored_bytes(self) -> int:
        """Bytes in the repository."""
        return tree_bytes(self.repository / "backup")
