"""`lastgood metrics`: printed, or served until it is told to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from blocks.prefect_compat import needs_prefect
from flows.cli.commands.serve import address
from flows.reporting.metrics_server import MOST_CONNECTIONS, PLAIN
from flows.reporting.metrics_server import serving as served
from tests.flows.cli.desk import Desk
from tests.flows.cli.test_app import environment
from tests.flows.reading.exported import Scraped, scraped

COMMAND = [sys.executable, "-c", "import sys; from lastgood import main; sys.exit(main())"]


@contextmanager
def serving(*words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `lastgood metrics` with a port; gives what it prints, the address, without /metrics."""
    process = subprocess.Popen(
        [*COMMAND, "metrics", *words], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        assert said.endswith("/metrics"), process.communicate(timeout=30)
        yield said.removesuffix("/metrics"), process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> int:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (out, err) == ("", "" if number == signal.SIGTERM else err)
    return process.returncode


def scrape(url: str) -> Scraped:
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return scraped(answer.raise_for_status().text)


def test_it_prints_the_text_that_it_serves(desk: Desk) -> None:
    desk.backup()
    printed = desk.done("metrics", "PLAN")
    found = scraped(printed.out)
    assert found("backup_operations_created_success") == 1
    assert found("lastgood_backups_committed_total", plan="trading") == 1
    assert printed.err == ""


def test_what_it_counted_outlives_it(desk: Desk) -> None:
    for before in (0, 2):
        desk.backup()
        with serving(str(desk.plan), "--serve", "0") as (url, process):
            assert scrape(url)("backup_operations_created_total") == before + 1
            assert scrape(url)("lastgood_up", plan="trading") == 1
            desk.backup()
            assert scrape(url)("backup_operations_created_total") == before + 2
            assert ended(process, signal.SIGTERM) == 0


def test_there_is_a_page_for_people_and_a_sign_of_life(desk: Desk) -> None:
    with serving(str(desk.plan), "--serve", "0") as (url, process):
        page = httpx.get(f"{url}/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "trading" in page.text
        assert httpx.get(f"{url}/").text == page.text, "repositories are not read for everybody who looks"
        assert httpx.get(f"{url}/healthz").text == "ok\n"
        assert httpx.head(f"{url}/metrics").status_code == 200
        assert httpx.get(f"{url}/../etc/passwd").status_code == 404
        assert httpx.post(f"{url}/metrics").status_code == 501
        assert ended(process, signal.SIGINT) == 130


def test_those_who_ask_at_the_same_moment_and_those_who_never_finish_keep_nobody_away() -> None:
    with served("127.0.0.1", 0, {"/metrics": (PLAIN, lambda: "up 1\n")}) as url, ExitStack() as opened:
        where = url.removeprefix("http://").split(":")
        slow = []
        for _ in range(MOST_CONNECTIONS + 50):
            slow.append(opened.enter_context(socket.create_connection((where[0], int(where[1])), timeout=30)))
            slow[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        assert httpx.get(f"{url}/metrics", timeout=30).text == "up 1\n"
        assert [one.recv(1) for one in slow[:50]] == [b""] * 50, "the oldest were closed"
        with ThreadPoolExecutor(50) as threads:
            found = list(threads.map(lambda _: httpx.get(f"{url}/metrics", timeout=30).status_code, range(100)))
        assert found == [200] * 100


def test_a_name_server_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(_name: str = "") -> str:
        raise AssertionError("a name server was asked")

    monkeypatch.setattr(socket, "getfqdn", asked)
    with served("127.0.0.1", 0, {"/": (PLAIN, lambda: "up\n")}) as url:
        assert httpx.get(f"{url}/").text == "up\n"


def test_it_listens_on_this_machine_alone_unless_told_otherwise(desk: Desk) -> None:
    with serving(str(desk.plan), "--serve", "0", "--host", "::1") as (url, _):
        assert url.startswith("http://[::1]:")
        assert scrape(url)("lastgood_up", plan="trading") == 1
    with serving(str(desk.plan), "--serve", "0") as (url, _):
        assert url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--serve", "65536"], "is no port"),
        (["--serve", "0", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--serve", "0", "--host", "no such host.invalid"], "cannot listen on"),
        (["--serve", "0", "--host", "x" * 64], "cannot listen on"),
        (["--host", "0.0.0.0"], "Add --serve PORT"),
        (["--prefix", "9 lives"], "cannot be the prefix of a metric"),
        (["PLAN"], "are both named 'trading'"),
        (["--host", "0.0.0.0"], "nothing is to be served"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(desk: Desk, words: list[str], said: str) -> None:
    ran = desk.run("metrics", "PLAN", *words)
    assert ran.code == 2
    assert said in ran.err
    assert ran.out == ""


def test_a_port_that_is_taken_is_named(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = desk.run("metrics", "PLAN", "--serve", port)
    assert ran.code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use\n" in ran.err


def test_the_prefix_is_that_of_the_plans_unless_another_one_is_given(desk: Desk) -> None:
    with desk.plan.open("a") as plan:
        plan.write("metrics: {prefix: acme.desk}\n")
    for words, before in ([], "acme_desk_"), (["--prefix", "shop"], "shop_"), (["--prefix", ""], ""):
        assert f"\n{before}backup_operations_created_total 0\n" in desk.done("metrics", "PLAN", *words).out
    other = desk.folder / "other.yaml"
    other.write_text(desk.plan.read_text().replace("name: trading", "name: other").replace("acme.desk", "shop"))
    ran = desk.run("metrics", "PLAN", str(other))
    assert ran.code == 2
    assert "different prefixes of metrics: 'acme.desk', 'shop'" in ran.err


@pytest.mark.parametrize(
    ("typed", "place"),
    [("9817", ("127.0.0.1", 9817)), ("0.0.0.0:9817", ("0.0.0.0", 9817)), ("[::]:9817", ("::", 9817))],
)
def test_serve_listens_for_metrics_where_it_is_told(typed: str, place: tuple[str, int]) -> None:
    assert address(typed) == place


def test_a_repository_that_is_away_takes_nothing_from_the_journal(desk: Desk) -> None:
    desk.backup()
    (desk.folder / "backups").rename(desk.folder / "elsewhere")
    ran = desk.done("metrics", "PLAN")
    found = scraped(ran.out)
    assert found("lastgood_up", plan="trading") == 0
    assert found("backup_operations_created_success") == 1
    assert "metrics of plan trading are those of the journal alone: the repository's folder" in ran.err


def test_it_needs_prefect_for_saved_plans_alone(desk: Desk) -> None:
    assert not needs_prefect(["metrics", "a.yaml", "b.yaml", "--serve", "0"])
    assert not needs_prefect(["metrics", "--host", "localhost", "--prefix", "shop", "a.yaml"])
    assert needs_prefect(["metrics", "a.yaml", "saved", "--serve", "0"])


def test_an_exporter_without_a_home_shows_the_repository(desk: Desk, tmp_path: Path) -> None:
    desk.backup()
    clean = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_STATE_HOME")}
    ran = subprocess.run(
        [*COMMAND, "metrics", str(desk.plan)],
        env=clean | {"LASTGOOD_JOURNAL": str(tmp_path / "nothing here")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert scraped(ran.stdout)("lastgood_backups_committed_total", plan="trading") == 1
    assert not os.path.exists(tmp_path / "nothing here")
