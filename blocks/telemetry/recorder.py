"""Records what the operation does that a thread works for.

Who works (tiers, sources, stages, leases) asks `recorder()` whether somebody records, and goes on if nobody does. It is
a context variable, so that operations of one process do not mix; threads that work for an operation are started with
its context (`blocks/host/threads.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from blocks.telemetry.numbers import BreakerTurns, OperationNumbers, Outcome, SourceReads, TierBytes, TierCalls


class Recorder:
    """Counts. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._stages: dict[str, float] = {}
        self._calls: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._moved: dict[tuple[str, str], int] = {}
        self._reads: dict[tuple[str, str], tuple[int, float, int, int]] = {}
        self._breakers: dict[str, tuple[int, int]] = {}
        self._waited, self._refused = 0.0, 0

    def stage(self, stage: str, seconds: float) -> None:
        """Count one call of a stage."""
        self.add(OperationNumbers(stages={stage: seconds}))

    def call(self, tier: str, call: str, outcome: str, seconds: float) -> None:
        """Count one call of a tier; see `TierCalls`."""
        self.add(OperationNumbers(calls=(TierCalls(tier, call, outcome, 1, seconds),)))

    def moved(self, tier: str, direction: str, size_bytes: int) -> None:
        """Count what went to a tier (`written`) or came from it (`read`)."""
        self.add(OperationNumbers(moved=(TierBytes(tier, direction, size_bytes),)))

    def read(self, reads: SourceReads) -> None:
        """Count reads of a source."""
        self.add(OperationNumbers(reads=(reads,)))

    def read_failed(self, source: str, seconds: float = 0.0) -> None:
        """Count that a source could not be read, or not be opened."""
        self.read(SourceReads(source, Outcome.FAILED.value, 1, seconds, 0, 0))

    def breaker(self, tier: str, *, opened: bool) -> None:
        """Count that the breaker of a tier opened, or closed."""
        self.add(OperationNumbers(breakers=(BreakerTurns(tier, int(opened), int(not opened)),)))

    def waited(self, seconds: float, *, refused: bool) -> None:
        """Count that another run that held the plan was waited for, and whether in vain."""
        self.add(OperationNumbers(lease_wait_seconds=seconds, leases_refused=int(refused)))

    def add(self, numbers: OperationNumbers) -> None:
        """Count what another recorder counted."""
        with self._guard:
            for stage, seconds in numbers.stages.items():
                self._stages[stage] = self._stages.get(stage, 0.0) + seconds
            for one in numbers.calls:
                calls, spent = self._calls.get(one[:3], (0, 0.0))
                self._calls[one[:3]] = calls + one.calls, spent + one.seconds
            for tier, direction, size in numbers.moved:
                self._moved[tier, direction] = self._moved.get((tier, direction), 0) + size
            for read in numbers.reads:
                reads, spent, rows, size = self._reads.get(read[:2], (0, 0.0, 0, 0))
                more = (reads + read.reads, spent + read.seconds, rows + read.rows, size + read.size_bytes)
                self._reads[read[:2]] = more
            for tier, opened, closed in numbers.breakers:
                before = self._breakers.get(tier, (0, 0))
                self._breakers[tier] = before[0] + opened, before[1] + closed
            self._waited += numbers.lease_wait_seconds
            self._refused += numbers.leases_refused

    def numbers(self) -> OperationNumbers:
        """Return what was counted so far."""
        with self._guard:
            return OperationNumbers(
                stages=dict(self._stages),
                calls=tuple(TierCalls(*names, *counts) for names, counts in sorted(self._calls.items())),
                moved=tuple(TierBytes(*names, size) for names, size in sorted(self._moved.items())),
                reads=tuple(SourceReads(source, how, *sums) for (source, how), sums in sorted(self._reads.items())),
                breakers=tuple(BreakerTurns(tier, *turns) for tier, turns in sorted(self._breakers.items())),
                lease_wait_seconds=self._waited,
                leases_refused=self._refused,
            )


_recorder: ContextVar[Recorder | None] = ContextVar("lastgood_recorder", default=None)

recorder = _recorder.get
"""Return who records what this thread does; None for nobody."""


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record what is done within. What was recorded is added to an outer recording, if there is one, at the end."""
    own, outer = Recorder(), recorder()
    token = _recorder.set(own)
    try:
        yield own
    finally:
        _recorder.reset(token)
        if outer is not None:
            outer.add(own.numbers())
