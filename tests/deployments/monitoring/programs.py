"""Prometheus and Alertmanager on free ports, with our files, and a program that Alertmanager tells of alerts."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from deployments.monitoring.files import write_monitoring_files
from tests.object_servers import free_ports

_WAIT_SECONDS = 60


@dataclass
class Webhook:
    """Takes what Alertmanager posts."""

    url: str = ""
    told: list[Any] = field(default_factory=list)

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts that it was told of, in their order."""
        return [alert for message in self.told for alert in message["alerts"]]


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    address: str

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Ask for an instant vector, or a scalar without labels."""
        with urlopen(f"{self.address}/api/v1/query?{urlencode({'query': expression})}", timeout=20) as answer:
            data = json.load(answer)["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def until(self, expression: str) -> None:
        """Wait until an expression returns something."""
        until(lambda: bool(self.ask(expression)), expression)


def until(happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not happens():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


@contextmanager
def webhook() -> Iterator[Webhook]:
    found = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, form: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}/"
        yield found
        server.shutdown()


@contextmanager
def watching(folder: Path, exporters: Sequence[str], told: Webhook) -> Iterator[Prometheus]:
    """Run both with the files that `lastgood monitoring` writes.

    What differs: they look every second, and alerts go to a program of this machine, at once.

    Args:
        folder: Where the files and what they keep go.
        exporters: What is scraped, as URLs.
        told: Gets the alerts.
    """
    own, theirs, mail = free_ports(3)
    write_monitoring_files(folder, targets=[address.removeprefix("http://") for address in exporters])
    _edit(folder / "prometheus.yml", ("30s", "1s"), ("localhost:9093", f"127.0.0.1:{theirs}"))
    _edit(
        folder / "alertmanager.yml",
        ("group_wait: 30s", "group_wait: 0s"),
        ("http://on-call.example.org/lastgood", told.url),
        ("mail.example.org:587", f"127.0.0.1:{mail}"),
    )
    alertmanager = ["--config.file=alertmanager.yml", "--storage.path=told", "--cluster.listen-address="]
    alertmanager += [f"--web.listen-address=127.0.0.1:{theirs}", "--log.level=error"]
    prometheus = ["--config.file=prometheus.yml", "--storage.tsdb.path=kept", "--log.level=warn"]
    prometheus += [f"--web.listen-address=127.0.0.1:{own}"]
    with (
        _running(["prometheus-alertmanager", *alertmanager], folder, theirs),
        _running(["prometheus", *prometheus], folder, own),
    ):
        yield Prometheus(f"http://127.0.0.1:{own}")


def _edit(path: Path, *words: tuple[str, str]) -> None:
    text = path.read_text()
    for word, other in words:
        assert word in text
        text = text.replace(word, other)
    path.write_text(text)


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    log = folder / f"{command[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    try:
        until(ready, f"{command[0]} is ready")
        yield
    finally:
        process.kill()
        process.wait()
