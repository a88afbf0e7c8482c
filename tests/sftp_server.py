"""SFTP servers on free ports of this machine: OpenSSH, and one in Python that can lack things; tests may kill them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from blocks.storage.kinds import open_tier
from blocks.storage.settings import StorageSettings
from blocks.storage.sftp import SftpTier
from tests.object_servers import free_ports

ROOT = Path(__file__).parents[1]
SSHD = "/usr/sbin/sshd"
PASSWORD, PASSWORD_ENV = "test-sftp-password", "TEST_SFTP_PASSWORD"
USER = "root" if os.geteuid() == 0 else os.environ.get("USER", "")
_WAIT_SECONDS = 30

KINDS = ("openssh", "python")


@dataclass
class SftpServer:
    """An SFTP server: its keys below `folder`, what it serves in `files`.

    `lacking` (hardlink, rename, fsync) is refused by the one in Python; `advertised` is whether it pretends to know it.
    """

    kind: str
    folder: Path
    lacking: tuple[str, ...] = ()
    advertised: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _tiers: list[SftpTier] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.files.mkdir(parents=True)
        self.port = free_ports(1)[0]
        for name in ("host", "user", "other"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(str(self.folder / name))
            (self.folder / name).chmod(0o600)
            key.write_public_key(str(self.folder / f"{name}.pub"))
        self.know(self.folder / "known_hosts", "host")

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def settings(self) -> StorageSettings:
        return StorageSettings(
            key_file=self.folder / "user", known_hosts=self.folder / "known_hosts", timeout_seconds=20, attempts=3
        )

    def know(self, file: Path, key: str, host: str = "127.0.0.1") -> Path:
        """Write a known_hosts with one of the keys for this server."""
        file.write_text(f"[{host}]:{self.port} {(self.folder / f'{key}.pub').read_text()}")
        return file

    def url(self, name: str) -> str:
        folder = self.files / name if self.kind == "openssh" else Path("/") / name
        return f"sftp://{USER}@127.0.0.1:{self.port}{folder}"

    def tier(self, name: str | None = None, prepared: bool = True, **settings: Any) -> SftpTier:
        """A tier in a folder of its own below `files`; settings replace those of this server."""
        name = name or f"tier-{time.monotonic_ns()}"
        tier = open_tier(self.url(name), self.settings.model_copy(update=settings))
        assert isinstance(tier, SftpTier)
        self._tiers.append(tier)
        if prepared:
            tier.prepare()
        return tier

    def start(self) -> None:
        """Start it, or start it again on the same port."""
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            self._openssh() if self.kind == "openssh" else self._python(),
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _python(self) -> list[str]:
        options = {
            "port": self.port, "files": str(self.files), "host_key": str(self.folder / "host"),
            "keys": str(self.folder / "user.pub"), "password": PASSWORD, "lacking": list(self.lacking),
            "advertised": self.advertised,
        }  # fmt: skip
        return [sys.executable, "-m", "tests.sftp_child", json.dumps(options)]

    def _openssh(self) -> list[str]:
        assert Path(SSHD).exists(), f"{SSHD} is missing: run tests/tools.sh"
        if os.geteuid() == 0:
            # where it locks itself in before anybody has logged in
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder / 'user.pub'}\nStrictModes no\nUsePAM no\nUseDNS no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
            "Subsystem sftp internal-sftp\n"
        )
        return [SSHD, "-D", "-e", "-f", str(config)]

    @property
    def processes(self) -> list[int]:
        """The server and its descendants, which OpenSSH takes out of its process group."""
        assert self.process is not None
        found = [self.process.pid]
        for one in found:
            with suppress(OSError):
                found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        return found

    def kill(self) -> None:
        """Kill it with all of its connections, as a power cut would."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it and its connections a signal."""
        for one in self.processes:
            with suppress(ProcessLookupError):
                os.kill(one, number)

    def release(self) -> None:
        """Close the connections of all tiers, each of which is a process of OpenSSH's."""
        while self._tiers:
            self._tiers.pop().close()

    def close(self) -> None:
        """Kill it, and let the tiers go."""
        self.kill()
        self.release()


@contextmanager
def sftp_server(kind: str, folder: Path, **options: Any) -> Iterator[SftpServer]:
    """A running server of a kind; its folder is removed at the end."""
    server = SftpServer(kind, folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
