"""Threads know what the one knows who gives them work, and nobody waits long for what does not answer."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from blocks.host.threads import ShortCalls, WorkerThreads, worker_thread

KNOWN: ContextVar[str] = ContextVar("known", default="nothing")


def test_each_piece_of_work_knows_what_was_known_when_it_was_given() -> None:
    with WorkerThreads(1) as pool:
        futures = []
        for known in ("one", "other"):
            KNOWN.set(known)
            futures.append(pool.submit(KNOWN.get))
        assert [future.result() for future in futures] == ["one", "other"]
        assert list(pool.map(lambda n: (KNOWN.get(), n), [1, 2])) == [("other", 1), ("other", 2)]


def test_what_a_thread_comes_to_know_stays_there() -> None:
    KNOWN.set("before")
    thread = worker_thread(KNOWN.set, "within", name="beside")
    assert (thread.daemon, thread.name) == (True, "beside")
    thread.start()
    thread.join()
    assert KNOWN.get() == "before"


def test_a_short_call_raises_what_its_work_raises() -> None:
    calls, seen = ShortCalls("short"), []
    KNOWN.set("asked")
    calls.call(lambda: seen.append((KNOWN.get(), threading.current_thread().name)), 60)
    assert seen == [("asked", "short")]
    with pytest.raises(ZeroDivisionError):
        calls.call(lambda: 1 // 0, 60)


def test_while_a_call_is_late_no_other_is_begun() -> None:
    calls, may, begun = ShortCalls("short"), threading.Event(), []
    ended = threading.Event()

    def late() -> None:
        may.wait()
        ended.set()

    with pytest.raises(TimeoutError, match=r"more than 0\.01 seconds"):
        calls.call(late, 0.01)
    with pytest.raises(TimeoutError, match="more than 60 seconds"):
        calls.call(lambda: begun.append("other"), 60)
    assert begun == []
    may.set()
    ended.wait()
    for thread in threading.enumerate():
        if thread.name == "short":
            thread.join()
    calls.call(lambda: begun.append("other"), 60)
    assert begun == ["other"]
