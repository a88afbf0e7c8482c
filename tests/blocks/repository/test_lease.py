from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, RepositoryFull, RepositoryLocked, RepositoryUnavailable
from blocks.host.leftovers import process_name
from blocks.repository.lease import acquire, break_lease, held
from blocks.repository.lease_watch import held_lease
from blocks.repository.leases import Clock, Leases
from blocks.storage.base import StorageTier
from blocks.storage.local import LocalTier
from blocks.telemetry.numbers import OperationNumbers
from blocks.telemetry.recorder import recording
from tests.blocks.repository_support import START, HostClock, StampedTier, TurnedClock


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def tier(tmp_path: Path) -> StorageTier:
    made = LocalTier(str(tmp_path))
    made.prepare()
    return made


@pytest.fixture
def stamped(tier, clock) -> StampedTier:
    """The same place, with the time that the clock says."""
    return StampedTier(tier.url, clock)


@pytest.fixture
def leases(stamped, clock) -> Leases:
    return Leases(stamped, "plan", 300, clock)


def take(leases: Leases, holder: str = "host:1", wait_seconds: float = 0, floor: int = 0):
    return acquire(leases, holder, "backup", lambda: floor, wait_seconds)


def test_a_second_run_is_refused_and_told_who_holds_the_lease(leases, clock):
    first = take(leases, "host:1")
    first.work_on("FUL_20260301_120000_0000")
    with pytest.raises(RepositoryLocked) as caught:
        take(leases, "host:2")
    for fact in ("plan plan", "host:1", "backup FUL_20260301_120000_0000", "2026-03-01 12:00:00", "12:05:00"):
        assert fact in caught.value.message
    assert caught.value.hint
    assert leases.live() == first.record


def test_a_released_lease_is_taken_with_the_next_token_and_the_old_object_goes(leases):
    first = take(leases)
    first.release()
    assert leases.live() is None
    second = take(leases)
    assert (first.token, second.token) == (1, 2)
    assert leases.tokens() == [2]
    with pytest.raises(RepositoryLocked, match="given back"):
        first.check()


def test_an_expired_lease_is_taken_over_and_its_old_holder_notices(leases, clock):
    first = take(leases, "host:1")
    clock.turn(299)
    with pytest.raises(RepositoryLocked):
        take(leases, "host:2")
    clock.turn(1)
    second = take(leases, "host:2")
    with pytest.raises(RepositoryLocked, match="took it over"):
        first.check()
    first.release()
    assert leases.live() == second.record


def test_a_lease_of_a_killed_process_of_this_machine_is_taken_over_at_once(leases):
    script = "from blocks.host.leftovers import process_name; print(process_name())"
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    first = take(leases, ended.stdout.strip())
    second = take(leases, process_name())
    with pytest.raises(RepositoryLocked, match="took it over"):
        first.check()
    with pytest.raises(RepositoryLocked, match=r"\["):
        take(leases, process_name())
    second.check()


def test_a_run_that_stood_still_and_whose_lease_nobody_took_renews_it_and_goes_on(leases, clock):
    lease = take(leases, "host:1")
    for attempt in (lease.check, lease.renew, lambda: lease.work_on("FUL_20260301_120000_0000")):
        clock.turn(3000)
        attempt()
        assert lease.record.expires_at >= clock.now()
    with pytest.raises(RepositoryLocked):
        take(leases, "host:2")


def test_a_run_that_stood_still_and_whose_lease_was_taken_says_so(leases, clock):
    lease = take(leases, "host:1")
    clock.turn(3000)
    take(leases, "host:2").release()
    for attempt in (lease.check, lease.renew, lambda: lease.work_on("FUL_20260301_120000_0000")):
        with pytest.raises(RepositoryLocked, match=r"took it over .* not renewed it for 3000 s") as caught:
            attempt()
        assert "Nothing was committed" in caught.value.hint
    assert leases.tokens() == [2]


def test_who_takes_over_gives_way_to_a_holder_that_is_at_work_again(stamped, leases, clock):
    """It has looked, and the holder looks, before it has created its token."""
    lease = take(leases, "host:1")
    clock.turn(400)

    class Slow(Leases):
        def write(self, token, record, exclusive=False):
            if exclusive and token == 2:
                clock.turn(1)
                lease.check()
            super().write(token, record, exclusive)

    with pytest.raises(RepositoryLocked, match="host:1"):
        take(Slow(stamped, "plan", 300, clock), "host:2")
    assert leases.tokens() == [1]
    lease.check()
    lease.release()
    assert take(leases).token == 2


def test_a_check_that_comes_soon_after_a_renewal_writes_nothing(leases, stamped, clock):
    lease = take(leases)
    clock.turn(100)
    before = stamped.list()
    lease.check()
    assert stamped.list() == before


def test_a_renewed_lease_holds_for_its_full_length_from_then(leases, clock):
    lease = take(leases)
    for _ in range(10):
        clock.turn(200)
        lease.renew()
    clock.turn(299)
    lease.check()
    with pytest.raises(RepositoryLocked):
        take(leases, "host:2")


def test_how_long_another_run_was_waited_for_is_counted_and_whether_in_vain(leases, clock):
    with recording() as counted:
        take(leases, "host:1")
        assert counted.numbers() == OperationNumbers()
        with pytest.raises(RepositoryLocked):
            take(leases, "host:2", wait_seconds=100)
        assert (counted.numbers().lease_wait_seconds, counted.numbers().leases_refused) == (100, 1)
        take(leases, "host:2", wait_seconds=300)
    assert (counted.numbers().lease_wait_seconds, counted.numbers().leases_refused) == (300, 1)


def test_waiting_ends_when_the_other_run_dies_or_the_patience_does(leases, clock):
    take(leases, "host:1")
    with pytest.raises(RepositoryLocked):
        take(leases, "host:2", wait_seconds=100)
    assert clock.time == START + timedelta(seconds=100)
    assert take(leases, "host:2", wait_seconds=300).token == 2
    assert clock.time == START + timedelta(seconds=300)


def test_tokens_go_on_after_the_highest_committed_one_where_the_leases_were_lost(leases):
    assert take(leases, floor=41).token == 42


def test_a_lease_whose_object_was_deleted_or_replaced_is_lost(leases, tier):
    lease = take(leases)
    name = "locks/plan/000000000001"
    other = json.loads(tier.get(name)) | {"nonce": "another"}
    tier.put(name, json.dumps(other).encode())
    with pytest.raises(RepositoryLocked, match="belongs to another"):
        lease.check()
    tier.remove([name])
    with pytest.raises(RepositoryLocked):
        lease.check()


def test_an_unreadable_lease_is_held_until_its_full_length_has_passed(tier):
    tier.put("locks/plan/000000000007", b"not json")
    leases = Leases(tier, "plan", 300, Clock())
    with pytest.raises(RepositoryLocked, match="unreadable"):
        take(leases)
    assert take(Leases(tier, "plan", 0, Clock())).token == 8


def test_other_files_among_the_leases_are_ignored(leases, tier):
    tier.put("locks/plan/README", b"hello")
    assert take(leases).token == 1


def test_a_late_writer_of_an_old_token_gives_way(leases, stamped):
    """Between its look and its write, others took its token and the next, and deleted its token."""

    class Late(Leases):
        looked = False

        def current(self):
            if not self.looked:
                self.looked = True
                take(leases).release()
                take(leases).release()
                take(leases)
                return None
            return super().current()

    late = Late(stamped, "plan", 300, leases.clock)
    with pytest.raises(RepositoryLocked):
        take(late, "late")
    assert leases.tokens() == [3]


def test_the_thread_renews_until_the_lease_is_given_back(tier):
    class Ticks(TurnedClock):
        """Lets the renewing thread go round as often as the test says."""

        def __init__(self) -> None:
            super().__init__()
            self.go, self.gone_round = threading.Semaphore(0), threading.Semaphore(0)
            self.waited: list[float] = []

        def wait(self, stop: threading.Event, seconds: float) -> bool:
            self.waited.append(seconds)
            self.gone_round.release()
            self.go.acquire()
            return stop.is_set()

    clock = Ticks()
    leases = Leases(tier, "plan", 300, clock)
    with held(take(leases)) as lease:
        for _ in range(5):
            clock.gone_round.acquire()
            clock.turn(100)
            clock.go.release()
        clock.gone_round.acquire()
        assert lease.record.expires_at == clock.now() + timedelta(seconds=300)
    clock.go.release()
    assert set(clock.waited) == {100}
    assert leases.live() is None


def test_the_thread_tries_again_when_the_storage_fails_for_a_while(leases, clock, tier):
    """For one round, the whole folder of the repository is away."""
    lease = take(leases)
    away = tier.root.with_name("away")
    rounds = iter([lambda: tier.root.rename(away), lambda: away.rename(tier.root), lambda: None])

    def wait(stop: threading.Event, seconds: float) -> bool:
        clock.turn(seconds)
        next(rounds, stop.set)()
        return stop.is_set()

    clock.wait = wait
    lease.keep()
    lease.check()
    assert lease.record.expires_at == START + timedelta(seconds=600)


def test_a_lease_is_given_back_when_the_work_fails(leases):
    with pytest.raises(ZeroDivisionError), held(take(leases)):
        _ = 1 / 0
    assert leases.live() is None


def test_a_release_that_fails_does_not_hide_the_error_of_the_work(leases, tier):
    def work() -> None:
        with held(take(leases)):
            tier.remove(["locks/plan/000000000001"])
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()


def test_of_many_threads_exactly_one_gets_the_lease(stamped, clock):
    barrier = threading.Barrier(8)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            take(Leases(stamped, "plan", 300, clock), f"host:{number}")
        except RepositoryLocked:
            return False
        return True

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(attempt, range(8))).count(True) == 1
        clock.turn(301)
    assert Leases(stamped, "plan", 300, clock).tokens() == [5]


def test_of_two_processes_exactly_one_gets_the_lease(stamped, clock):
    """Both wait for the same byte, so that they really race."""
    for token in range(1, 11):
        gate, go = os.pipe()
        children = []
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                status = 2
                try:
                    os.read(gate, 1)
                    take(Leases(stamped, "plan", 300, clock), f"process:{number}")
                    status = 0
                except RepositoryLocked:
                    status = 1
                finally:
                    os._exit(status)
            children.append(pid)
        os.write(go, b"..")
        statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)
        assert statuses == [0, 1]
        assert Leases(stamped, "plan", 300, clock).tokens() == [token]
        clock.turn(301)


def test_a_plan_that_is_no_name_gets_no_lease(tier, clock):
    with pytest.raises(ConfigurationError):
        Leases(tier, "../plan", 300, clock)


def test_a_missing_disk_is_not_taken_for_a_free_lease(tmp_path, clock):
    leases = Leases(LocalTier(str(tmp_path / "away")), "plan", 300, clock)
    with pytest.raises(RepositoryUnavailable):
        take(leases)


def test_a_folder_in_the_place_of_the_next_lease_hinders_nobody(leases, tier):
    (tier.root / "locks" / "plan" / "000000000001").mkdir(parents=True)
    assert take(leases).token == 2


@pytest.mark.parametrize("what", ["a FIFO", "far too much", "nothing", "not json"])
def test_a_lease_that_is_none_is_said_and_holds_until_its_full_length_has_passed(tier, what):
    path = tier.root / "locks" / "plan" / "000000000007"
    tier.put("locks/plan/000000000001", b"")
    if what == "a FIFO":
        os.mkfifo(path)
    else:
        path.write_bytes({"nothing": b"", "not json": b"{"}.get(what, b""))
        if what == "far too much":
            os.truncate(path, 8 << 30)
    leases = Leases(tier, "plan", 300, Clock())
    (finding,) = leases.damaged()
    assert "000000000007" in finding
    with pytest.raises(RepositoryLocked, match="unreadable"):
        take(leases)
    later = Leases(tier, "plan", 0, Clock())
    assert take(later).token == 8
    assert later.damaged() == []


# Clocks

DAY = timedelta(days=1)


@pytest.mark.parametrize("holder", [-DAY, timedelta(0), DAY])
@pytest.mark.parametrize("other", [-DAY, timedelta(0), DAY])
def test_clocks_of_hosts_decide_nothing(stamped, clock, holder, other):
    first = take(Leases(stamped, "plan", 300, HostClock(clock, holder)), "host:1")
    elsewhere = Leases(stamped, "plan", 300, HostClock(clock, other))
    for _ in range(5):
        clock.turn(200)
        first.renew()
        with pytest.raises(RepositoryLocked, match="host:1"):
            take(elsewhere, "host:2")
    first.check()
    clock.turn(299)
    with pytest.raises(RepositoryLocked):
        take(elsewhere, "host:2")
    clock.turn(1)
    assert take(elsewhere, "host:2").token == 2
    assert [one.name for one in stamped.list("locks/")] == ["locks/plan/000000000002"], (
        "nothing is left of the question"
    )


@pytest.mark.parametrize("other", [-DAY, DAY])
def test_who_waits_on_a_host_with_a_wrong_clock_waits_as_long_as_others(stamped, clock, other):
    take(Leases(stamped, "plan", 300, clock), "host:1")
    elsewhere = Leases(stamped, "plan", 300, HostClock(clock, other))
    with pytest.raises(RepositoryLocked):
        take(elsewhere, "host:2", wait_seconds=100)
    assert clock.time == START + timedelta(seconds=100)
    take(elsewhere, "host:2", wait_seconds=3600)
    assert clock.time == START + timedelta(seconds=300)


def test_an_expiry_in_2028_is_not_believed(stamped, leases, clock):
    """The clock of the host was wrong, and that of the storage was not."""
    take(Leases(stamped, "plan", 300, HostClock(clock, timedelta(days=800))), "host:1")
    clock.turn(299)
    with pytest.raises(RepositoryLocked, match="2026-03-01 12:05:00"):
        take(leases, "host:2")
    assert leases.live().expires_at == START + timedelta(seconds=300)
    clock.turn(1)
    assert leases.live() is None
    assert take(leases, "host:2").token == 2


def test_a_lease_that_was_written_in_2028_is_watched_for_its_length_and_then_taken(leases, clock, caplog):
    """The clock of the storage was wrong, and is not any more; this run would wait for nobody."""
    clock.turn(800 * 24 * 3600)
    take(leases, "host:1")
    clock.time = START
    assert leases.live() is not None
    assert take(leases, "host:2").token == 2
    assert clock.time == START + timedelta(seconds=300)
    assert "2028-05-09" in caplog.text
    assert "still to come" in caplog.text


def test_a_lease_that_was_written_in_2028_and_is_renewed_is_held(leases, clock):
    clock.turn(800 * 24 * 3600)
    lease = take(leases, "host:1")
    clock.time = START
    turn = clock.turn

    def renewing(seconds: float) -> None:
        turn(seconds)
        if clock.time == START + timedelta(seconds=100):
            lease.renew()

    clock.turn = renewing
    with pytest.raises(RepositoryLocked, match="host:1"):
        take(leases, "host:2")
    lease.check()


def test_who_sees_a_renewal_waits_for_the_full_length_whatever_times_are_said(stamped, clock):
    """The time of the storage goes back by a day while one run waits for the other."""
    lease = take(Leases(stamped, "plan", 300, clock), "host:1")
    back = HostClock(clock, -DAY)
    seconds = iter(range(1, 10_000))

    class Waiting(HostClock):
        def sleep(self, waited: float) -> None:
            self.turn(waited)
            if next(seconds) == 50:
                lease._leases = Leases(StampedTier(stamped.url, back), "plan", 300, clock)
                lease.renew()

    take(Leases(stamped, "plan", 300, Waiting(clock, timedelta(0))), "host:2", wait_seconds=3600)
    assert clock.time == START + timedelta(seconds=350)


@pytest.mark.parametrize(("said", "held_for"), [(None, 300), (1000, 1000), (50, 50)])
def test_a_lease_holds_for_the_length_that_it_says_whatever_this_plan_says(stamped, clock, said, held_for):
    take(Leases(stamped, "plan", said or 300, clock), "host:1")
    other = Leases(stamped, "plan", 100, clock)
    clock.turn(held_for - 1)
    with pytest.raises(RepositoryLocked):
        take(other, "host:2")
    clock.turn(1)
    take(other, "host:2")


def test_versions_before_and_after_this_one_read_each_others_leases(stamped, leases):
    take(leases)
    written = json.loads(stamped.get("locks/plan/000000000001"))
    assert list(written) == ["holder", "purpose", "backup_id", "acquired_at", "expires_at", "nonce", "released"]
    stamped.put("locks/plan/000000000002", json.dumps(written | {"holder": "host:3", "colour": "blue"}).encode())
    with pytest.raises(RepositoryLocked, match="host:3"):
        take(leases)
    assert leases.damaged() == []


def test_where_no_room_is_left_to_ask_for_the_time_the_lease_is_held_as_it_says(stamped, clock):
    class Full(StampedTier):
        def put(self, name, data, exclusive=False, like_before=False):
            raise RepositoryFull("no room is left")

    take(Leases(stamped, "plan", 300, clock), "host:1")
    full = Leases(Full(stamped.url, clock), "plan", 300, HostClock(clock, DAY))
    assert held_lease(full) is not None, "nothing of it may be removed"
    full = Leases(Full(stamped.url, clock), "plan", 300, HostClock(clock, -DAY))
    with pytest.raises(RepositoryLocked, match="host:1"):
        take(full, "host:2")


# Breaking a lease


def test_a_broken_lease_is_free_and_its_holder_notices(leases):
    lease = take(leases, "host:1")
    break_lease(leases, leases.current(), "host:9", lambda: 7)
    assert leases.tokens() == [8], "tokens only grow"
    assert leases.live() is None
    with pytest.raises(RepositoryLocked, match="host:9 broke it with `lastgood unlock`"):
        lease.check()
    lease.release()
    assert take(leases).token == 9


def test_what_was_taken_meanwhile_is_not_broken(leases):
    first = take(leases, "host:1")
    found = leases.current()
    first.release()
    second = take(leases, "host:2")
    with pytest.raises(RepositoryLocked, match="nothing was broken"):
        break_lease(leases, found, "host:9", lambda: 0)
    second.check()


# Few requests


def test_a_lease_names_the_backup_it_was_taken_for_from_the_beginning(leases):
    drawn = iter(["INC_20260301_120000_0000", "INC_20260301_120000_0001"])
    lease = acquire(leases, "host:1", "backup", lambda: 0, draw=lambda: next(drawn))
    assert leases.live() == lease.record
    assert lease.record.backup_id == "INC_20260301_120000_0000"


def test_the_highest_committed_token_is_asked_for_only_where_there_is_no_lease(leases):
    asked = []
    acquire(leases, "host:1", "backup", lambda: asked.append(1) or 7).release()
    assert acquire(leases, "host:1", "backup", lambda: asked.append(2) or 7).token == 9
    assert asked == [1]


def test_a_lease_is_looked_at_again_before_it_is_written_unless_that_was_just_done(leases, clock, tier):
    lease = take(leases)
    lease.check()
    clock.turn(100)
    other = json.loads(tier.get("locks/plan/000000000001")) | {"nonce": "another"}
    tier.put("locks/plan/000000000001", json.dumps(other).encode())
    lease.release()
    assert json.loads(tier.get("locks/plan/000000000001"))["released"] is False


def test_a_lease_that_is_listed_and_not_there_is_not_looked_for_without_end(leases, stamped, clock):
    take(leases).release()
    listed = stamped.list("locks/plan/")
    stale = Leases(stamped, "plan", 300, clock, listing=lambda _prefix: listed)
    assert stale.current() is not None
    (stamped.root / "locks/plan/000000000001").unlink()
    with pytest.raises(RepositoryUnavailable, match="which is not there"):
        stale.current()
