"""What operations do is counted for each of them, in whatever threads they do it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    StorageRefused,
    StorageUnreachable,
)
from blocks.host.threads import WorkerThreads, worker_thread
from blocks.storage.attempts import BREAK_AFTER, BREAK_SECONDS, Attempts, Breaker, Transient
from blocks.storage.base import StorageTier
from blocks.storage.counted import CountedTier
from blocks.storage.local import LocalTier
from blocks.telemetry.numbers import (
    BreakerTurns,
    OperationNumbers,
    Outcome,
    SourceReads,
    TierBytes,
    TierCalls,
    outcome_of,
)
from blocks.telemetry.recorder import Recorder, recorder, recording

ALL = OperationNumbers(
    stages={"collect": 1.25, "apply": 0.5},
    calls=(TierCalls("s3://b/x", "get", "missing", 2, 0.25), TierCalls("s3://b/x", "put", "ok", 1, 0.5)),
    moved=(TierBytes("s3://b/x", "read", 10), TierBytes("s3://b/x", "written", 20)),
    reads=(SourceReads("ledger", "failed", 1, 0.5, 0, 0), SourceReads("ledger", "ok", 3, 1.5, 100, 4000)),
    breakers=(BreakerTurns("s3://b/x", 1, 0),),
    lease_wait_seconds=2.5,
    leases_refused=1,
)


def test_numbers_are_kept_as_json():
    kept = json.loads(json.dumps(ALL.as_json()))
    assert kept == {
        "stages": {"collect": 1.25, "apply": 0.5},
        "calls": [["s3://b/x", "get", "missing", 2, 0.25], ["s3://b/x", "put", "ok", 1, 0.5]],
        "moved": [["s3://b/x", "read", 10], ["s3://b/x", "written", 20]],
        "reads": [["ledger", "failed", 1, 0.5, 0, 0], ["ledger", "ok", 3, 1.5, 100, 4000]],
        "breakers": [["s3://b/x", 1, 0]],
        "lease_wait_seconds": 2.5,
        "leases_refused": 1,
    }
    assert list(kept["stages"]) == ["collect", "apply"]
    assert OperationNumbers().as_json() == {}


def test_what_a_recorder_adds_up_is_twice_as_much_after_the_same_again():
    counted = Recorder()
    counted.add(ALL)
    assert counted.numbers() == ALL
    counted.add(ALL)
    twice = counted.numbers()
    assert twice.reads[1] == SourceReads("ledger", "ok", 6, 3.0, 200, 8000)
    assert twice.calls[0] == TierCalls("s3://b/x", "get", "missing", 4, 0.5)
    assert (twice.moved[1].size_bytes, twice.breakers[0].opened, twice.leases_refused) == (40, 2, 2)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ObjectMissing("x"), Outcome.MISSING),
        (AlreadyExists("x"), Outcome.EXISTS),
        (ObjectUnreadable("x"), Outcome.UNREADABLE),
        (StorageRefused("x"), Outcome.REFUSED),
        (RepositoryFull("x"), Outcome.FULL),
        (StorageUnreachable("x"), Outcome.UNREACHABLE),
        (ConfigurationError("x"), Outcome.FAILED),
        (KeyboardInterrupt(), Outcome.FAILED),
    ],
)
def test_how_a_call_ended_is_told_by_its_error(error: BaseException, outcome: Outcome):
    assert outcome_of(error) is outcome


@pytest.fixture
def tier(tmp_path: Path) -> StorageTier:
    made = CountedTier(LocalTier(str(tmp_path / "tier")))
    made.prepare()
    return made


def test_calls_of_a_tier_are_counted_with_their_bytes_and_how_they_ended(tier: StorageTier):
    tier.put("before", b"nobody counts")
    with recording() as counted:
        tier.put("a/one", b"12345", exclusive=True)
        with pytest.raises(AlreadyExists):
            tier.put("a/one", b"other", exclusive=True)
        tier.overwrite("a/one", memoryview(b"123"))
        assert [tier.get("a/one"), tier.get("a/one", 1, 1)] == [b"123", b"2"]
        for missing in (tier.get, tier.size):
            with pytest.raises(ObjectMissing):
                missing("a/two")
        assert [tier.exists("a/one"), tier.is_object("a/one"), tier.size("a/one")] == [True, True, 3]
        assert [[one.name for one in tier.list("a/")], list(tier.folders())] == [["a/one"], ["a"]]
        assert (tier.first_page(), list(tier.leftovers())) == (None, [])
        tier.remove(name for name in ["a/one", "a/two"])
    found = counted.numbers()
    assert {(call, outcome): calls for _, call, outcome, calls, _ in found.calls} == {
        ("get", "missing"): 1, ("get", "ok"): 2, ("list", "ok"): 4, ("put", "exists"): 1, ("put", "ok"): 2,
        ("remove", "ok"): 1, ("size", "missing"): 1, ("size", "ok"): 3,
    }  # fmt: skip
    assert {one.tier for one in found.calls} == {tier.place}
    assert found.moved == (TierBytes(tier.place, "read", 4), TierBytes(tier.place, "written", 8))
    assert all(one.seconds >= 0 for one in found.calls)


def test_no_call_of_a_tier_goes_another_way():
    calls = {name for name, one in vars(StorageTier).items() if not name.startswith("_") and callable(one)}
    assert {"get", "put", "prune"} < calls
    assert calls <= vars(CountedTier).keys() | {"durable", "opened"}


def test_operations_at_the_same_time_do_not_mix_and_their_threads_count_for_them(tier: StorageTier):
    meet = threading.Barrier(2)

    def operate(name: str, times: int) -> OperationNumbers:
        with recording() as counted, WorkerThreads(2) as pool:
            meet.wait()
            futures = [pool.submit(tier.put, f"{name}/{number}", b"x" * times) for number in range(times)]
            beside = worker_thread(tier.exists, f"{name}/0", name="beside")
            beside.start()
            for future in futures:
                future.result()
            beside.join()
            meet.wait()
        return counted.numbers()

    with ThreadPoolExecutor(2) as pool:
        few, many = pool.map(operate, ["few", "many"], [2, 7])
    for found, times in ((few, 2), (many, 7)):
        assert {(one.call, one.calls) for one in found.calls} == {("put", times), ("size", 1)}
        assert found.moved == (TierBytes(tier.place, "written", times * times),)


def test_an_outer_recording_has_what_an_inner_one_had():
    with recording() as outer:
        with recording() as inner:
            recorder().stage("collect", 1.0)
        recorder().stage("collect", 0.5)
        assert recorder() is outer
    assert recorder() is None
    assert (inner.numbers().stages, outer.numbers().stages) == ({"collect": 1.0}, {"collect": 1.5})


def test_a_breaker_that_opens_and_closes_is_counted_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    now = [1000.0]
    breaker = Breaker("s3://bucket/x", clock=lambda: now[0])
    attempts = Attempts(1, 10, breaker, sleep=lambda _: None)

    def fail() -> None:
        now[0] += 1
        raise Transient(StorageUnreachable("away"))

    with recording() as counted:
        for _ in range(BREAK_AFTER):
            assert not breaker.is_open
            now[0] += 1
            with pytest.raises(StorageUnreachable):
                attempts.call(fail)
        assert breaker.is_open
        with pytest.raises(StorageUnreachable, match=f"failed {BREAK_AFTER} times in a row"):
            attempts.call(lambda: None)
        now[0] += BREAK_SECONDS + 1
        assert not breaker.is_open
        for _ in range(3):
            attempts.call(lambda: None)
    assert counted.numbers().breakers == (BreakerTurns("s3://bucket/x", 1, 1),)
