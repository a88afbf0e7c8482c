"""The demo's own S3 server: a private SeaweedFS with one bucket, gone when the demo ends."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from deployments.demo.guarded import guarded, private_folder
from deployments.demo.programs import find_seaweed

_BUCKET = "backups"
_KEY_ID, _SECRET = "LASTGOOD_DEMO_S3_KEY_ID", "LASTGOOD_DEMO_S3_SECRET"
_GRPC_OFFSET = 10_000
"""Each service of SeaweedFS listens so far above its port, too."""


@contextmanager
def running_s3(home: Path) -> Iterator[dict[str, object]]:
    """Run an S3 server; gives the `repository` of a plan in it, whose credentials are in the environment meanwhile.

    Args:
        home: Folder for its lock and its output.

    Raises:
        NotAtHand: SeaweedFS is not installed.
        ServerFailed: It does not start.
    """
    program = find_seaweed()
    credentials = {_KEY_ID: secrets.token_hex(8), _SECRET: secrets.token_urlsafe(24)}
    with private_folder(None) as folder:
        identity = {
            "name": "lastgood",
            "credentials": [{"accessKey": credentials[_KEY_ID], "secretKey": credentials[_SECRET]}],
            "actions": ["Read", "Write", "List"],
        }
        identities = folder / "identities.json"
        identities.touch(mode=0o600)
        identities.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3, metrics = (_free_port() for _ in range(5))
        command = [
            *(program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", f"-volume.port={volume}", "-volume.max=100", "-master.volumeSizeLimitMB=64"),
            *("-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={identities}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-metricsPort={metrics}"),
        ]
        with guarded(home / "s3.lock", folder, command, None, lambda: _made_bucket(filer, s3)), _set(credentials):
            storage = {"endpoint": f"http://127.0.0.1:{s3}", "region": "us-east-1"}
            yield {
                "url": f"s3://{_BUCKET}/trading",
                "storage": storage | {"key_id_env": _KEY_ID, "secret_env": _SECRET},
            }


def _made_bucket(filer: int, s3: int) -> bool:
    """Make the bucket, a folder of SeaweedFS' file system, and see whether the S3 service answers."""
    try:
        with suppress(HTTPError):  # it is there already
            urlopen(Request(f"http://127.0.0.1:{filer}/buckets/{_BUCKET}/", method="POST"), timeout=5)
        socket.create_connection(("127.0.0.1", s3), timeout=1).close()
    except (URLError, OSError):
        return False
    return True


def _free_port() -> int:
    """Return a port that nobody listens on, nor so far above it as SeaweedFS does."""
    while True:
        with socket.socket() as one, socket.socket() as above:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            with suppress(OSError, OverflowError):  # OverflowError: there is no port of that number
                above.bind(("127.0.0.1", port + _GRPC_OFFSET))
                return port


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
