"""The stage executor: payloads that are taken once, a window that bounds memory, retries of what is retryable."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from prefect import task

from blocks.errors import (
    BaseUnusable,
    ConfigurationError,
    CorruptionDetected,
    RepositoryLocked,
    RepositoryUnavailable,
    SourceChanged,
    SourceUnavailable,
    TemporaryFolderFull,
    TemporaryFolderUnusable,
    UnsupportedState,
)
from flows.pipeline.executor import BoundedWindow, StageExecutor, open_executor, retried
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PARTS_IN_FLIGHT, PURE, RETRIED, RETRIES, STAGES, is_retryable


class Payload:
    """Something whose life can be watched."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that retries asked for, without passing them."""
    asked: list[float] = []
    monkeypatch.setattr(time, "sleep", asked.append)
    return asked


@pytest.fixture
def executor() -> Iterator[StageExecutor]:
    with open_executor() as executor:
        yield executor


def test_a_box_gives_its_payload_once() -> None:
    box = OneShot("rows")
    assert (box.peek(), box.peek(), box.take()) == ("rows", "rows", "rows")
    for look in (box.peek, box.take):
        with pytest.raises(RuntimeError, match="taken already"):
            look()


def test_a_box_may_hold_none_and_may_be_emptied_twice() -> None:
    assert OneShot(None).take() is None
    box = OneShot(1)
    box.empty()
    box.empty()
    with pytest.raises(RuntimeError):
        box.take()


def test_a_taken_payload_lives_no_longer_than_its_taker() -> None:
    payload = Payload()
    alive, box = weakref.ref(payload), OneShot(payload)
    del payload
    assert alive() is not None
    box.take()
    gc.collect()
    assert alive() is None


@task(**PURE)
def make(n: int) -> OneShot[int]:
    return OneShot(n)


@task(**PURE)
def double(n: int, one_shot: OneShot[int]) -> int:
    return one_shot.take() * 2


def test_outside_of_a_flow_run_the_stages_run_in_order_without_a_server(executor: StageExecutor) -> None:
    done: dict[int, int] = {}
    window = BoundedWindow(range(20), done=done.__setitem__)
    for n in window:
        box = executor.submit(make, n)
        window.follow(n, box, executor.submit(double, n, box))
    assert done == {n: 2 * n for n in range(20)}
    assert [outcome.result() for outcome in window.last] == [2 * n for n in range(20)]


def test_a_stage_waits_for_what_it_follows_without_taking_it(executor: StageExecutor) -> None:
    order: list[str] = []
    gate = threading.Event()

    @task(**PURE)
    def first() -> None:
        gate.wait(10)
        order.append("first")

    @task(**PURE)
    def second() -> None:
        order.append("second")

    outcomes = [executor.submit(first)]
    last = executor.submit(second, after=outcomes)
    gate.set()
    last.result()
    assert order == ["first", "second"]


def test_what_a_stage_follows_fails_it_too(executor: StageExecutor) -> None:
    @task(**PURE)
    def fails() -> None:
        raise CorruptionDetected("object 7")

    ran: list[int] = []

    @task(**PURE)
    def never() -> None:
        ran.append(1)

    with pytest.raises(CorruptionDetected, match="object 7"):
        executor.submit(never, after=[executor.submit(fails)]).result()
    assert ran == []


class Counted:
    """Counts the parts that are in flight."""

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
def test_no_more_parts_are_in_flight_than_the_window_is_wide(executor: StageExecutor, size: int) -> None:
    counted = Counted()
    window = BoundedWindow(range(10), size=size, progress=counted)
    for n in window:
        window.follow(n, executor.submit(make, n))
    assert (counted.most, counted.now) == (size, 0)
    assert [int(word[1:]) for word in counted.seen if word[0] == "-"] == list(range(10))


def test_parts_are_taken_only_when_there_is_room(executor: StageExecutor) -> None:
    drawn: list[int] = []

    def parts() -> Iterator[int]:
        for n in range(5):
            drawn.append(n)
            yield n

    window = BoundedWindow(parts())
    for n in window:
        assert len(drawn) <= n + 1 + PARTS_IN_FLIGHT
        window.follow(n, executor.submit(make, n))


def test_every_stage_of_every_part_of_the_window_has_a_thread(executor: StageExecutor) -> None:
    """Stages that wait for each other hold their threads; with too few of them the executor would hang."""
    everyone = threading.Barrier(PARTS_IN_FLIGHT * STAGES)

    @task(**PURE)
    def meet() -> int:
        return everyone.wait(20)

    outcomes = [executor.submit(meet) for _ in range(PARTS_IN_FLIGHT * STAGES)]
    assert sorted(outcome.result() for outcome in outcomes) == list(range(PARTS_IN_FLIGHT * STAGES))


def test_a_failure_ends_the_window_after_the_other_parts_came_to_rest(executor: StageExecutor) -> None:
    finished, gate = threading.Event(), threading.Event()

    @task(**PURE)
    def stage(n: int) -> int:
        if n == 0:
            gate.set()
            raise UnsupportedState("row 7")
        gate.wait(10)
        finished.set()
        return n

    entered: list[int] = []

    def run() -> None:
        for n in (window := BoundedWindow(range(5))):
            entered.append(n)
            window.follow(n, executor.submit(stage, n))

    with pytest.raises(UnsupportedState, match="row 7"):
        run()
    assert entered == [0, 1]
    assert finished.is_set()


class Interrupted:
    """The outcome of a stage that runs until it is told to stop; the waiting caller is interrupted."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def result(self) -> None:
        raise KeyboardInterrupt

    def wait(self) -> None:
        assert self.stopped.wait(10), "nobody said that the run is given up"


def test_an_interrupted_window_says_so_before_it_waits() -> None:
    running = Interrupted()
    told: list[BaseException] = []

    def give_up(error: BaseException, part: str | None) -> None:
        told.append(error)
        running.stopped.set()

    window = BoundedWindow(iter(["a", "b"]), size=1, give_up=give_up)
    parts = iter(window)
    window.follow(next(parts), running)
    with pytest.raises(KeyboardInterrupt):
        next(parts)
    assert isinstance(told[0], KeyboardInterrupt)


def test_the_first_failing_stage_is_the_cause(executor: StageExecutor) -> None:
    @task(**PURE)
    def breaks(n: int) -> OneShot[int]:
        raise SourceChanged(f"file {n}")

    def run() -> None:
        for n in (window := BoundedWindow([1])):
            box = executor.submit(breaks, n)
            window.follow(n, box, executor.submit(double, n, box))

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
    [
        ConfigurationError("x"),
        CorruptionDetected("x"),
        BaseUnusable("x"),
        UnsupportedState("x"),
        TemporaryFolderFull("x"),
        RepositoryLocked("x"),
        ValueError("x"),
    ],
)
def test_what_is_wrong_is_not_tried_again(error: Exception, pauses: list[float]) -> None:
    with pytest.raises(type(error)):
        retried(failing(1, lambda: error))
    assert pauses == []
    assert not is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailable("x"),
        SourceChanged("x"),
        TemporaryFolderUnusable("x"),
        RepositoryUnavailable("x"),
        OSError(5, "x"),
    ],
)
def test_what_was_unavailable_may_be_back(error: Exception) -> None:
    assert is_retryable(error)


def test_a_stage_that_touches_the_outside_is_retried_on_the_line_and_keeps_its_box(
    executor: StageExecutor, pauses: list[float]
) -> None:
    attempts: list[int] = []

    @task(**RETRIED)
    def store(one_shot: OneShot[str]) -> str:
        payload = one_shot.peek()
        attempts.append(1)
        if len(attempts) < 3:
            raise RepositoryUnavailable("disk")
        one_shot.empty()
        return payload

    box = OneShot("sealed")
    assert executor.submit(store, box).result() == "sealed"
    assert len(attempts) == 3
    with pytest.raises(RuntimeError):
        box.peek()


def test_a_stage_that_only_computes_is_not_retried(executor: StageExecutor, pauses: list[float]) -> None:
    attempts: list[int] = []

    @task(**PURE)
    def compute() -> None:
        attempts.append(1)
        raise SourceUnavailable("x")

    with pytest.raises(SourceUnavailable):
        executor.submit(compute).result()
    assert (len(attempts), pauses) == (1, [])
