"""Servers that speak S3 on free ports of this machine: SeaweedFS, and rclone, which ignores preconditions."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError

from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.settings import StorageSettings

KEY_ID, SECRET = "test-key-id", "test-secret"
READER_ID, READER_SECRET = "test-reader-id", "test-reader-secret"
"""Keys that may list and read, and nothing else."""
KEY_ID_ENV, SECRET_ENV = "TEST_S3_KEY_ID", "TEST_S3_SECRET"
_WAIT_SECONDS = 60


def program(name: str) -> str:
    """The path of a program that the lock installs beside Python."""
    found = Path(sys.executable).with_name(name)
    assert found.exists(), f"{name} is missing: run `make install`"
    return str(found)


def free_ports(count: int, offset: int = 0) -> list[int]:
    """Ports that nobody listens on now; with an offset, those that many above them are free, too."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if offset and port + offset > 65_000:
                continue
            with suppress(OSError):
                other.bind(("127.0.0.1", port + offset if offset else 0))
                ports.append(port)
    return ports


@dataclass
class Seaweed:
    """A SeaweedFS server: S3 at `endpoint`, its data below `folder`.

    Attributes:
        options: Of its program, after all others, so that they count.
    """

    folder: Path
    port: int = 0
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _buckets: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> StorageSettings:
        """How it is reached; `environment` has to be set."""
        return StorageSettings(
            endpoint=self.endpoint, region="us-east-1", key_id_env=KEY_ID_ENV, secret_env=SECRET_ENV,
            timeout_seconds=20, attempts=3,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        return {KEY_ID_ENV: KEY_ID, SECRET_ENV: SECRET}

    def start(self) -> None:
        """Start it, or start it again with the data that it has, on the same port."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identities = self.folder / "identities.json"
        admin = _identity(KEY_ID, SECRET, "Admin", "Read", "Write", "List", "Tagging")
        reader = _identity(READER_ID, READER_SECRET, "Read", "List")
        identities.write_text(json.dumps({"identities": [admin, reader]}))
        # each service also listens for gRPC, ten thousand above its port
        master, volume, filer, s3, metrics = free_ports(5, offset=10_000)
        self.port = self.port or s3
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                program("weed"), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                f"-master.port={master}", f"-volume.port={volume}", "-volume.max=1000", "-filer",
                f"-filer.port={filer}", "-s3", f"-s3.port={self.port}", f"-s3.config={identities}",
                "-s3.port.iceberg=0", "-s3.port.lance=0", f"-metricsPort={metrics}", "-master.volumeSizeLimitMB=64",
                *self.options,
            ],
            stdout=(self.folder / "log").open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        bucket = f"probe-{self.port}"
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            with suppress(URLError, HTTPError, ConnectionError, OSError, AssertionError):
                self._make(bucket, b"content")
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _make(self, bucket: str, content: bytes = b"") -> None:
        """Make a bucket: its first object makes it, for who may do everything."""
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            bucket, endpoint=self.endpoint, region="us-east-1", access_key_id=KEY_ID, secret_access_key=SECRET,
            client_options={"allow_http": True}, retry_config={"max_retries": 0},
        )  # fmt: skip
        try:
            # content, because what was stored before a restart can be read when new content can be stored
            obstore.put(store, "made", content)
            obstore.get(store, "made").bytes()
            obstore.delete(store, "made")
        except obstore.exceptions.BaseError as exc:
            raise AssertionError(str(exc)) from exc

    def bucket(self) -> str:
        """Make a new bucket; returns its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}-{int(time.monotonic() * 1000)}"
        self._make(name)
        return name

    def tier(self, prefix: str = "repository") -> StorageTier:
        """A tier in a bucket of its own; `environment` has to be set."""
        return open_tier(f"s3://{self.bucket()}/{prefix}", self.settings)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def _identity(key_id: str, secret: str, *actions: str) -> dict[str, object]:
    keys = [{"accessKey": key_id, "secretKey": secret}]
    return {"name": key_id, "credentials": keys, "actions": actions}


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server that was started."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not ready():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


_RCLONE_BUCKETS = [f"bucket-{number}" for number in range(50)]


@dataclass
class Rclone:
    """`rclone serve s3`: a server that ignores every precondition, in silence, and answers ranges wrongly."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(repr=False)
    _used: int = 0

    @property
    def settings(self) -> StorageSettings:
        """How it is reached; the environment of `Seaweed` has to be set."""
        return StorageSettings(
            endpoint=f"http://127.0.0.1:{self.port}", region="us-east-1", key_id_env=KEY_ID_ENV, secret_env=SECRET_ENV,
            timeout_seconds=20, attempts=2,
        )  # fmt: skip

    def bucket(self) -> str:
        """Return the name of a bucket that nobody has used."""
        self._used += 1
        return _RCLONE_BUCKETS[self._used - 1]


@contextmanager
def rclone(folder: Path) -> Iterator[Rclone]:
    """A running server."""
    # what is made later in its folder it does not see for minutes
    for name in _RCLONE_BUCKETS:
        (folder / "data" / name).mkdir(parents=True)
    (port,) = free_ports(1)
    command = [
        program("rclone"), "serve", "s3", str(folder / "data"), f"--addr=127.0.0.1:{port}",
        f"--auth-key={KEY_ID},{SECRET}", f"--config={folder / 'none'}",
    ]  # fmt: skip
    log = folder / "log"
    process = subprocess.Popen(command, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until(lambda: listens(port), process, log)
        yield Rclone(folder, port, process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def seaweed(folder: Path, *options: str) -> Iterator[Seaweed]:
    """A running server; its folder is removed at the end."""
    server = Seaweed(folder, options=options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
