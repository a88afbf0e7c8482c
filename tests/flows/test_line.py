"""The line: boxes that give their payload away, a window that bounds memory, retries that know what may help."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from prefect import task

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    RepositoryLocked,
    RepositoryUnavailable,
    SourceChanged,
    SourceUnavailable,
    UnsupportedState,
)
from flows.box import Box
from flows.engine import INSIDE, OUTSIDE, RETRIES, STAGES, WINDOW, may_help
from flows.line import Line, Window, open_line, retried


class Payload:
    """Something whose life can be watched."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that retries asked for, without passing them."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.fixture
def line() -> Iterator[Line]:
    with open_line() as line:
        yield line


def test_a_box_gives_its_payload_once() -> None:
    box = Box("rows")
    assert (box.peek(), box.peek(), box.take()) == ("rows", "rows", "rows")
    for look in (box.peek, box.take):
        with pytest.raises(RuntimeError, match="taken already"):
            look()


def test_a_box_may_hold_none_and_may_be_emptied_twice() -> None:
    assert Box(None).take() is None
    box = Box(1)
    box.empty()
    box.empty()
    with pytest.raises(RuntimeError):
        box.take()


def test_a_taken_payload_lives_no_longer_than_its_taker() -> None:
    payload = Payload()
    alive, box = weakref.ref(payload), Box(payload)
    del payload
    assert alive() is not None
    box.take()
    gc.collect()
    assert alive() is None


@task(**INSIDE)
def make(n: int) -> Box[int]:
    return Box(n)


@task(**INSIDE)
def double(n: int, box: Box[int]) -> int:
    return box.take() * 2


def test_outside_of_a_flow_run_the_stages_run_in_order_without_a_server(line: Line) -> None:
    done: dict[int, int] = {}
    window = Window(range(20), done=done.__setitem__)
    for n in window:
        box = line.submit(make, n)
        window.follow(n, box, line.submit(double, n, box))
    assert done == {n: 2 * n for n in range(20)}
    assert [outcome.result() for outcome in window.last] == [2 * n for n in range(20)]


def test_a_stage_waits_for_what_it_follows_without_taking_it(line: Line) -> None:
    order: list[str] = []
    gate = threading.Event()

    @task(**INSIDE)
    def first() -> None:
        gate.wait(10)
        order.append("first")

    @task(**INSIDE)
    def second() -> None:
        order.append("second")

    outcomes = [line.submit(first)]
    last = line.submit(second, after=outcomes)
    gate.set()
    last.result()
    assert order == ["first", "second"]


def test_what_a_stage_follows_fails_it_too(line: Line) -> None:
    @task(**INSIDE)
    def fails() -> None:
        raise CorruptionDetected("object 7")

    ran: list[int] = []

    @task(**INSIDE)
    def never() -> None:
        ran.append(1)

    with pytest.raises(CorruptionDetected, match="object 7"):
        line.submit(never, after=[line.submit(fails)]).result()
    assert ran == []


class Counted:
    """Counts the parts that are on the line."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.seen: list[str] = []

    def entered(self, part: str) -> None:
        self.seen.append(f"+{part}")
        self.now += 1
        self.most = max(self.most, self.now)

    def left(self, part: str) -> None:
        self.seen.append(f"-{part}")
        self.now -= 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_more_parts_are_on_the_line_than_the_window_is_wide(line: Line, size: int) -> None:
    counted = Counted()
    window = Window(range(10), size=size, progress=counted)
    for n in window:
        window.follow(n, line.submit(make, n))
    assert (counted.most, counted.now) == (size, 0)
    assert [int(word[1:]) for word in counted.seen if word[0] == "-"] == list(range(10))


def test_parts_are_drawn_only_when_there_is_room(line: Line) -> None:
    drawn: list[int] = []

    def parts() -> Iterator[int]:
        for n in range(5):
            drawn.append(n)
            yield n

    window = Window(parts())
    for n in window:
        assert len(drawn) <= n + 1 + WINDOW
        window.follow(n, line.submit(make, n))


def test_every_stage_of_every_part_of_the_window_has_a_thread(line: Line) -> None:
    """Stages that wait for each other hold their threads; with too few of them the line would hang."""
    everyone = threading.Barrier(WINDOW * STAGES)

    @task(**INSIDE)
    def meet() -> int:
        return everyone.wait(20)

    outcomes = [line.submit(meet) for _ in range(WINDOW * STAGES)]
    assert sorted(outcome.result() for outcome in outcomes) == list(range(WINDOW * STAGES))


def test_a_failure_ends_the_window_after_the_other_parts_came_to_rest(line: Line) -> None:
    finished, gate = threading.Event(), threading.Event()

    @task(**INSIDE)
    def stage(n: int) -> int:
        if n == 0:
            gate.set()
            raise UnsupportedState("row 7")
        gate.wait(10)
        finished.set()
        return n

    entered: list[int] = []

    def run() -> None:
        for n in (window := Window(range(5))):
            entered.append(n)
            window.follow(n, line.submit(stage, n))

    with pytest.raises(UnsupportedState, match="row 7"):
        run()
    assert entered == [0, 1]
    assert finished.is_set()


class Interrupted:
    """The outcome of a stage that runs until it is told to stop; whoever waits for its result is interrupted."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def result(self) -> None:
        raise KeyboardInterrupt

    def wait(self) -> None:
        assert self.stopped.wait(10), "nobody said that the run is given up"


def test_an_interrupted_window_says_so_before_it_waits() -> None:
    running = Interrupted()
    told: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        told.append(error)
        running.stopped.set()

    window = Window(iter(["a", "b"]), size=1, give_up=give_up)
    parts = iter(window)
    window.follow(next(parts), running)
    with pytest.raises(KeyboardInterrupt):
        next(parts)
    assert isinstance(told[0], KeyboardInterrupt)


def test_the_first_failing_stage_is_the_cause(line: Line) -> None:
    @task(**INSIDE)
    def breaks(n: int) -> Box[int]:
        raise SourceChanged(f"file {n}")

    def run() -> None:
        for n in (window := Window([1])):
            box = line.submit(breaks, n)
            window.follow(n, box, line.submit(double, n, box))

    with pytest.raises(SourceChanged, match="file 1"):
        run()


def failing(times: int, error: Callable[[], Exception]) -> Callable[[], int]:
    calls = []

    def work() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error()
        return len(calls)

    return work


def test_what_may_pass_is_tried_again_with_growing_pauses(pauses: list[float]) -> None:
    assert retried(failing(RETRIES, lambda: SourceUnavailable("locked"))) == RETRIES + 1
    assert len(pauses) == RETRIES
    for attempt, pause in enumerate(pauses):
        assert 0.5 * 2**attempt <= pause <= 1.5 * 2**attempt


def test_after_the_last_attempt_the_error_itself_comes_out(pauses: list[float]) -> None:
    with pytest.raises(RepositoryUnavailable, match="disk"):
        retried(failing(RETRIES + 1, lambda: RepositoryUnavailable("disk")))
    assert len(pauses) == RETRIES


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("x"), CorruptionDetected("x"), UnsupportedState("x"), RepositoryLocked("x"), ValueError("x")],
)
def test_what_is_wrong_is_not_tried_again(error: Exception, pauses: list[float]) -> None:
    with pytest.raises(type(error)):
        retried(failing(1, lambda: error))
    assert pauses == []
    assert not may_help(error)


@pytest.mark.parametrize(
    "error", [SourceUnavailable("x"), SourceChanged("x"), RepositoryUnavailable("x"), OSError(5, "x")]
)
def test_what_was_unavailable_may_be_back(error: Exception) -> None:
    assert may_help(error)


def test_a_stage_that_touches_the_outside_is_retried_on_the_line_and_keeps_its_box(
    line: Line, pauses: list[float]
) -> None:
    attempts: list[int] = []

    @task(**OUTSIDE)
    def store(box: Box[str]) -> str:
        payload = box.peek()
        attempts.append(1)
        if len(attempts) < 3:
            raise RepositoryUnavailable("disk")
        box.empty()
        return payload

    box = Box("sealed")
    assert line.submit(store, box).result() == "sealed"
    assert len(attempts) == 3
    with pytest.raises(RuntimeError):
        box.peek()


def test_a_stage_that_only_computes_is_not_retried(line: Line, pauses: list[float]) -> None:
    attempts: list[int] = []

    @task(**INSIDE)
    def compute() -> None:
        attempts.append(1)
        raise SourceUnavailable("x")

    with pytest.raises(SourceUnavailable):
        line.submit(compute).result()
    assert (len(attempts), pauses) == (1, [])
