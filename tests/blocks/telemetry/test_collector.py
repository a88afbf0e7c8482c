"""MetricsCollector tells each backend the same, in its own way, against receivers of each kind."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from blocks.errors import ConfigurationError
from blocks.telemetry.address import Address, socket_address, web_address
from blocks.telemetry.backends import pushing
from blocks.telemetry.backends.statsd import StatsdClient
from blocks.telemetry.collector import BackendKind, MetricsCollector, check_backend, check_reached
from blocks.telemetry.published import BYTES, COUNTERS, COUNTS, HISTOGRAMS, SECONDS, buckets_of
from tests.metric_servers import otlp_collector, packets, silent_server

ROOT = Path(__file__).parents[3]
CREATED, SIZE = "backup.operations.created_success", "backup.operations.size_bytes_total"
DURATION, REMOVED = "backup.operations.duration_seconds", "backup.retention.removed_count"


def recorded(collector: MetricsCollector) -> None:
    """A day in short."""
    for name in ("backup.operations.created_total", CREATED):
        collector.record_counter(name)
    collector.record_histogram(DURATION, 2.25)
    collector.record_histogram(SIZE, 1234567890123)


def test_statsd_gets_counters_and_values_under_the_published_names() -> None:
    with packets() as server:
        collector = MetricsCollector("statsd", "acme.", server.address)
        recorded(collector)
        assert collector.flush(30)
        assert server.lines(4) == [
            "acme.backup.operations.created_total:1|c",
            f"acme.{CREATED}:1|c",
            f"acme.{DURATION}:2.250000|ms",
            f"acme.{SIZE}:1234567890123.000000|ms",
        ]
        collector.close()
        recorded(collector)
        assert server.silent()


def test_datadog_gets_tags_too_over_udp_and_over_a_unix_socket(tmp_path: Path) -> None:
    expected = [
        "backup.operations.created_total:1|c|#env:prod,plan:trading",
        f"{CREATED}:1|c|#env:prod,plan:trading",
        f"{DURATION}:2.25|h|#env:prod,plan:trading",
        f"{SIZE}:1234567890123|h|#env:prod,plan:trading",
    ]
    tags = {"env": "prod", "plan": "trading"}
    with packets() as server:
        collector = MetricsCollector("datadog", address=f"udp://{server.address}", tags=tags)
        recorded(collector)
        # the client may add where it runs, behind what it is told
        assert [line.partition("|c:")[0].partition("|e:")[0] for line in server.lines(4)] == expected
        collector.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "dsd"))
        bound.settimeout(30)
        collector = MetricsCollector("datadog", address=f"unix://{tmp_path / 'dsd'}", tags=tags)
        recorded(collector)
        found: list[str] = []
        while len(found) < 4:
            found += bound.recv(65536).decode().splitlines()
        assert [line.partition("|c:")[0].partition("|e:")[0] for line in found] == expected
        collector.close()


def test_otlp_gets_what_came_since_it_last_got_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    with otlp_collector() as server:
        collector = MetricsCollector("otlp", "acme", server.address, {"env": "prod"})
        recorded(collector)
        assert collector.flush(30)
        recorded(collector)
        collector.close(30)
        assert len(server.requests) == 2
        path, headers, message = server.requests[0]
        assert (path, headers["api-key"]) == ("/v1/metrics", "secret")
        attributes = {one.key: one.value.string_value for one in message.resource_metrics[0].resource.attributes}
        assert attributes["service.name"] == "lastgood"
        found = server.metrics()
        assert found.keys() == {f"acme.{name}" for name in ("backup.operations.created_total", CREATED, DURATION, SIZE)}
        counted = found[f"acme.{CREATED}"].sum
        assert (counted.is_monotonic, counted.aggregation_temporality, counted.data_points[0].as_int) == (True, 1, 1)
        observed = found[f"acme.{DURATION}"]
        (point,) = observed.histogram.data_points
        assert (observed.unit, point.count, point.sum, tuple(point.explicit_bounds)) == ("s", 1, 2.25, SECONDS)
        assert {one.key: one.value.string_value for one in point.attributes} == {"env": "prod"}
        assert point.bucket_counts[SECONDS.index(2.5)] == 1
        assert found[f"acme.{SIZE}"].unit == "By"


def test_otlp_sends_by_itself_and_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "BATCH_SECONDS", 0.01)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative")
    with otlp_collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{server.address}/behind")
        collector = MetricsCollector("otlp")
        recorded(collector)
        until = time.monotonic() + 60
        while not server.requests and time.monotonic() < until:
            time.sleep(0.01)
        assert server.requests[0][0] == "/behind/v1/metrics"
        assert server.metrics()[CREATED].sum.aggregation_temporality == 2
        collector.close(30)


def test_prometheus_reads_the_published_names_from_zero_on() -> None:
    collector = MetricsCollector("prometheus", "acme")
    before = {sample.name: sample.value for one in families(collector) for sample in one.samples}
    assert {f"acme_{name.replace('.', '_')}" for name in COUNTERS} < before.keys()
    assert {f"acme_{name.replace('.', '_')}_count" for name in HISTOGRAMS} < before.keys()
    assert set(before.values()) == {0.0}
    recorded(collector)
    collector.record_counter("of.our-own")
    collector.record_histogram("of.ours_count", 3)
    collector.record_histogram(DURATION, 21601)
    after = {
        (sample.name, sample.labels.get("le")): sample.value for one in families(collector) for sample in one.samples
    }
    assert after["acme_backup_operations_created_total", None] == 1
    assert after["acme_backup_operations_created_success", None] == 1
    assert ("acme_backup_operations_created_success_total", None) not in after
    assert after["acme_backup_operations_size_bytes_total_sum", None] == 1234567890123
    name = "acme_backup_operations_duration_seconds"
    counts = [after[f"{name}_bucket", le] for le in ("0.1", "1.0", "2.5", "21600.0", "+Inf")]
    assert (counts, after[f"{name}_sum", None], after[f"{name}_count", None]) == ([0, 0, 1, 1, 2], 21603.25, 2)
    assert after["acme_of_our_own", None] == 1
    assert after["acme_of_ours_count_count", None] == 1


def families(collector: MetricsCollector) -> list[object]:
    return list(text_string_to_metric_families(collector.text()))


def test_prometheus_is_served_and_can_join_another_registry() -> None:
    collector = MetricsCollector("prometheus")
    recorded(collector)
    server = collector.serve(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            assert answer.read().decode() == collector.text()
    finally:
        server.shutdown()
        server.server_close()
    registry = CollectorRegistry()
    registry.register(collector)
    assert registry.get_sample_value("backup_operations_created_success") == 1
    for other in (MetricsCollector(), MetricsCollector("statsd")):
        with pytest.raises(ConfigurationError, match="prometheus"):
            other.text()


def test_buckets_fit_what_is_observed() -> None:
    assert (SECONDS[0], SECONDS[-1], BYTES[0], BYTES[-1], COUNTS[0], COUNTS[-1]) == (
        0.1, 6 * 3600, 1000, 10**13, 1, 10_000,
    )  # fmt: skip
    for bounds in (SECONDS, BYTES, COUNTS):
        assert list(bounds) == sorted(set(bounds))
    assert [buckets_of(name) for name in (DURATION, SIZE, REMOVED)] == [SECONDS, BYTES, COUNTS]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backend": "graphite"}, "none of prometheus, statsd, datadog, otlp"),
        ({"backend": "statsd", "tags": {"env": "prod"}}, "statsd has no tags; datadog and otlp have"),
        ({"backend": "prometheus", "address": "localhost:9090"}, "Prometheus fetches"),
        ({"backend": "statsd", "address": "localhost:many"}, "host:port"),
        ({"backend": "statsd", "address": "http://localhost"}, "host:port"),
        ({"backend": "statsd", "address": "unix:///run/statsd"}, "host:port"),
        ({"backend": "datadog", "address": "user@localhost:1"}, "host:port"),
        ({"backend": "otlp", "address": "localhost:4318"}, "http://localhost:4318"),
        ({"backend": "otlp", "address": "http://me:pw@localhost"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"address": "localhost:8125"}, "name the backend"),
        ({"backend": "statsd", "address": "a b"}, "write host:port"),
        ({"backend": "statsd", "prefix": "7up"}, "such as `acme`"),
    ],
)
def test_what_is_wrong_is_refused_at_once(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MetricsCollector(**arguments)  # type: ignore[arg-type]
    assert said in caught.value.message
    assert "pw" not in caught.value.message


def test_addresses_are_read_as_people_write_them() -> None:
    assert socket_address("metrics", 8125) == Address("metrics", 8125)
    assert socket_address("udp://metrics:1", 8125) == Address("metrics", 1)
    assert socket_address("[::1]:2", 8125) == Address("::1", 2)
    assert web_address("https://here", "/v1/metrics") == "https://here/v1/metrics"
    assert web_address("https://here/", "/v1/metrics") == "https://here/v1/metrics"
    assert web_address("https://here/otlp/metrics", "/v1/metrics") == "https://here/otlp/metrics"


def test_a_client_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.telemetry.collector.find_spec", lambda name: None)
    for backend in ("statsd", "datadog", "otlp"):
        with pytest.raises(ConfigurationError, match=f"the client of {backend} is not installed") as caught:
            MetricsCollector(backend)
        assert f'"lastgood[{backend}]"' in caught.value.hint


@pytest.mark.parametrize("backend", ["statsd", "datadog", "otlp"])
@pytest.mark.parametrize("place", ["closed", "unresolvable", "silent"])
def test_a_broken_backend_is_never_waited_for_and_raises_nothing(
    backend: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    with silent_server() as port:
        host, number = {
            "closed": ("127.0.0.1", 1),
            "unresolvable": ("nowhere.invalid", 8125),
            "silent": ("127.0.0.1", port),
        }[place]
        address = f"http://{host}:{number}" if backend == "otlp" else f"{host}:{number}"
        collector = MetricsCollector(backend, address=address)
        with caplog.at_level(logging.WARNING, "blocks"):
            began = time.process_time()
            for _ in range(3):
                recorded(collector)
            assert time.process_time() - began < 1
            began = time.monotonic()
            collector.flush(1)
            collector.close(1)
            # both wait no longer than they are told; the rest is for a busy machine
            assert time.monotonic() - began < 12
    # the thread of an earlier case may still say something of its own backend
    said = [one.message for one in caplog.records if one.message.startswith(f"{backend} at {address} ")]
    assert len([one for one in said if "was not told metrics" in one]) <= 1
    assert all("was not told metrics" in one or "did not take all metrics within 1 seconds" in one for one in said)


def test_of_a_backend_that_is_too_slow_no_more_waits_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pushing, "MOST_WAITING", 3)
    asked, may = threading.Event(), threading.Event()
    with packets() as server:

        def connect() -> StatsdClient:
            asked.set()
            may.wait()
            return StatsdClient(socket_address(server.address, 8125))

        pusher = pushing.Pusher(connect, "a slow one")
        pusher.count("first")
        asked.wait()
        with caplog.at_level(logging.WARNING, "blocks"):
            for number in range(10):
                pusher.count(f"n{number}")
            assert not pusher.flush(0.01)
        said = [one.message for one in caplog.records if one.message.startswith("a slow one")]
        assert said == ["a slow one is too slow: metrics are dropped"]
        may.set()
        assert server.lines(4) == ["first:1|c", "n0:1|c", "n1:1|c", "n2:1|c"]
        pusher.close(30)
        assert server.silent()


class Gathering:
    """A client that takes its time, and holds what it took until it is told to send it."""

    def __init__(self) -> None:
        self.may, self.flushed = threading.Event(), threading.Event()
        self.held: list[str] = []
        self.sent: list[str] = []

    def count(self, name: str) -> None:
        self.may.wait()
        self.held.append(name)

    def observe(self, name: str, value: float) -> None:
        self.count(name)

    def flush(self) -> None:
        self.sent, self.held = self.sent + self.held, []
        self.flushed.set()

    def close(self) -> None:
        self.sent.append("closed")


def test_the_end_waits_for_a_queue_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "MOST_WAITING", 3)
    client, connected = Gathering(), threading.Event()

    def connect() -> Gathering:
        connected.set()
        return client

    pusher = pushing.Pusher(connect, "a slow one")
    pusher.count("first")
    connected.wait()
    for number in range(3):
        pusher.count(f"n{number}")
    threading.Timer(0.1, client.may.set).start()
    pusher.close(60)
    assert client.sent == ["first", "n0", "n1", "n2", "closed"]


def test_after_the_end_nobody_waits_for_anything() -> None:
    client = Gathering()
    client.may.set()
    pusher = pushing.Pusher(lambda: client, "one")
    pusher.count("first")
    pusher.close(60)
    pusher.count("late")
    began = time.monotonic()
    assert pusher.flush(60)
    assert time.monotonic() - began < 30
    assert client.sent == ["first", "closed"]


def test_what_is_gathered_is_sent_soon_also_where_numbers_never_cease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "BATCH_SECONDS", 0.05)
    enough = threading.Event()

    class Fed(Gathering):
        def count(self, name: str) -> None:
            super().count(name)
            if not enough.is_set():
                pusher.count("again")

    client = Fed()
    client.may.set()
    pusher = pushing.Pusher(lambda: client, "a busy one")
    pusher.count("first")
    sent = client.flushed.wait(30)
    enough.set()
    pusher.close(60)
    assert sent


def test_a_host_that_cannot_be_one_is_said() -> None:
    for host in ("a..b", "x" * 70):
        with pytest.raises(ConfigurationError, match="the host is not known: it cannot be one"):
            check_reached(BackendKind.STATSD, f"{host}:8125")


def test_the_address_of_another_package_s_backend_holds_no_password_either() -> None:
    with pytest.raises(ValueError, match="no credentials"):
        check_backend("graphite", "https://me:pw@graphite.example.org", {})
    check_backend("graphite", "https://graphite.example.org", {"env": "prod"})


def test_a_process_that_ends_sends_what_is_left_and_a_disabled_collector_imports_no_client() -> None:
    with packets() as server:
        code = (
            "import sys\n"
            "from blocks.telemetry.collector import MetricsCollector\n"
            "nobody = MetricsCollector()\n"
            "nobody.record_counter('x'); nobody.record_histogram('x', 1); nobody.flush(); nobody.close()\n"
            "clients = ('statsd', 'datadog', 'opentelemetry', 'prometheus_client')\n"
            "assert not [name for name in sys.modules if name.partition('.')[0] in clients]\n"
            "assert 'blocks.telemetry.backends.pushing' not in sys.modules\n"
            f"MetricsCollector('statsd', address='{server.address}').record_counter('{CREATED}')\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
        assert server.lines(1) == [f"{CREATED}:1|c"]


def test_a_forked_process_sends_its_own() -> None:
    with packets() as server:
        code = (
            "import os\n"
            "from blocks.telemetry.collector import MetricsCollector\n"
            f"collector = MetricsCollector('statsd', address='{server.address}')\n"
            "collector.record_counter('before'); assert collector.flush(60)\n"
            "if os.fork() == 0:\n"
            "    collector.record_counter('child'); assert collector.flush(60)\n"
            "    os._exit(0)\n"
            "os.wait()\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
        assert server.lines(2) == ["before:1|c", "child:1|c"]
