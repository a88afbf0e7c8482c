"""What is tried again, how often and how long, and when a storage is left alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
    StorageRefused,
    StorageUnreachable,
)
from blocks.storage.attempts import BREAK_AFTER, BREAK_SECONDS, Attempts, Breaker, Transient
from tests.forked import forked

PLACE = "s3://bucket/x"


class Work:
    """Something that fails as it is told to, and counts how often it was tried."""

    def __init__(self, *errors: Exception, always: bool = False) -> None:
        self.tried, self._errors, self._always = 0, list(errors), always

    def __call__(self) -> str:
        self.tried += 1
        if self._errors:
            raise self._errors[0] if self._always else self._errors.pop(0)
        return "done"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def passing() -> Transient:
    return Transient(RepositoryUnavailable("cannot read a: 503", hint="Look."))


def down() -> Work:
    return Work(passing(), always=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def states(_own_state_home: Path) -> Path:
    return _own_state_home


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def attempts(clock: Clock, waits: list[float]) -> Attempts:
    return Attempts(4, 1000, Breaker(PLACE, clock), sleep=waits.append)


@pytest.fixture
def once(clock: Clock) -> Attempts:
    return Attempts(1, 1000, Breaker(PLACE, clock))


def fail(attempts: Attempts, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(StorageUnreachable, match="cannot read a: 503"):
            attempts.call(down())


def is_open(attempts: Attempts) -> bool:
    work = Work()
    try:
        attempts.call(work)
    except StorageUnreachable as exc:
        return (work.tried, "is left alone until" in exc.message) == (0, True)
    return False


def test_a_call_that_goes_on_failing_is_tried_as_often_as_is_said(attempts: Attempts, waits: list[float]) -> None:
    work = down()
    with pytest.raises(StorageUnreachable, match=r"cannot read a: 503 \(4 attempts\)") as caught:
        attempts.call(work)
    assert (work.tried, caught.value.hint) == (4, "Look.")
    assert all(0.2 * 2**n <= wait <= 0.2 * 2**n + 0.2 for n, wait in enumerate(waits))
    assert len(waits) == 3


def test_waits_differ_so_that_clients_do_not_come_together(clock: Clock) -> None:
    waits: list[float] = []
    attempts = Attempts(5, 1000, Breaker(PLACE, clock), sleep=waits.append)
    with pytest.raises(StorageUnreachable):
        attempts.call(down())
    assert len({round(wait / 2**n, 6) for n, wait in enumerate(waits)}) == 4


def test_a_call_that_works_again_is_a_success(attempts: Attempts, waits: list[float]) -> None:
    work = Work(passing(), passing())
    assert attempts.call(work) == "done"
    assert (work.tried, len(waits)) == (3, 2)


@pytest.mark.parametrize(
    "error",
    [
        StorageRefused("no"), ObjectMissing("no"), AlreadyExists("no"), ConfigurationError("no"), RepositoryFull("no"),
        ObjectUnreadable("no"), RepositoryUnavailable("no"), ZeroDivisionError(),
    ],
)  # fmt: skip
def test_an_answer_is_neither_asked_for_again_nor_counted(
    attempts: Attempts, waits: list[float], error: Exception
) -> None:
    for _ in range(BREAK_AFTER + 1):
        work = Work(error)
        with pytest.raises(type(error)):
            attempts.call(work)
        assert (work.tried, waits) == (1, [])
    assert not is_open(attempts)


def test_no_attempt_is_begun_after_so_many_seconds(clock: Clock) -> None:
    # the first wait is at most 0.4 s long, and the second ends at 0.6 s or later
    for seconds, tries in ((0.0, 1), (0.55, 2)):
        work = down()
        with pytest.raises(StorageUnreachable, match=rf"\({tries} attempts?\)"):
            Attempts(20, seconds, Breaker(f"{PLACE}/{tries}", clock)).call(work)
        assert work.tried == tries


def test_many_failed_calls_open_the_breaker_and_only_those_after_another(once: Attempts) -> None:
    fail(once, BREAK_AFTER - 1)
    assert not is_open(once)
    fail(once, BREAK_AFTER)
    assert is_open(once)


def test_an_attempt_that_failed_is_no_call_that_failed(attempts: Attempts) -> None:
    for _ in range(BREAK_AFTER + 1):
        attempts.call(Work(passing(), passing(), passing()))
    fail(attempts, BREAK_AFTER - 1)
    assert not is_open(attempts)


@pytest.mark.parametrize("error", [ObjectMissing("no"), AlreadyExists("no")])
def test_any_answer_of_the_storage_ends_a_row_of_failures(once: Attempts, error: LastgoodError) -> None:
    for _ in range(BREAK_AFTER):
        fail(once)
        with pytest.raises(type(error)):
            once.call(Work(error))
    fail(once)
    assert not is_open(once)


def test_calls_that_fail_together_are_one_failure(once: Attempts) -> None:
    for _ in range(BREAK_AFTER - 1):
        together = threading.Barrier(8)

        def work(together: threading.Barrier = together) -> None:
            together.wait()
            raise passing()

        with ThreadPoolExecutor(8) as pool:
            told = [pool.submit(once.call, work) for _ in range(8)]
        assert all(isinstance(one.exception(), StorageUnreachable) for one in told)
    fail(once)
    assert is_open(once), "each time counted once"


def test_a_breaker_lets_calls_through_after_its_time(once: Attempts, clock: Clock) -> None:
    fail(once, BREAK_AFTER)
    clock.now += BREAK_SECONDS - 1
    assert is_open(once)
    clock.now += 2
    fail(once)
    assert is_open(once), "one more failure opens it at once"
    clock.now += BREAK_SECONDS + 1
    assert once.call(Work()) == "done"
    fail(once, BREAK_AFTER - 1)
    assert not is_open(once), "a success closed it"


def test_a_breaker_is_shared_by_all_processes_and_by_nobody_elsewhere(once: Attempts, clock: Clock) -> None:
    forked(lambda: fail(once, BREAK_AFTER))
    clock.now += 1
    assert is_open(once)
    assert not is_open(Attempts(1, 0, Breaker("s3://other/x", clock)))
    clock.now += BREAK_SECONDS + 1
    forked(lambda: once.call(Work()))
    fail(once)
    assert not is_open(once)


@pytest.mark.parametrize("jump", [-365 * 86400.0, -3600.0, 3600.0, 365 * 86400.0])
def test_a_clock_that_jumps_neither_keeps_a_breaker_open_nor_shut(once: Attempts, clock: Clock, jump: float) -> None:
    fail(once, BREAK_AFTER)
    clock.now += jump
    assert not is_open(once)
    fail(once, BREAK_AFTER)
    assert is_open(once)


@pytest.mark.parametrize("content", [b"", b"[", b"[1]", b'["a", 1]', b"[99, null]", b"\xff"])
def test_what_is_torn_counts_as_nothing(once: Attempts, states: Path, content: bytes) -> None:
    fail(once, BREAK_AFTER)
    (state,) = (states / "lastgood" / "breakers").iterdir()
    state.write_bytes(content)
    assert not is_open(once)


def test_without_a_folder_for_it_there_is_no_breaker(once: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    fail(once, BREAK_AFTER + 1)
    once.call(Work())


def test_its_state_names_the_place_by_a_digest_only(once: Attempts, states: Path) -> None:
    fail(once)
    written = [path for path in states.rglob("*") if path.is_file()]
    assert written
    assert not any("bucket" in path.name or b"bucket" in path.read_bytes() for path in written)
