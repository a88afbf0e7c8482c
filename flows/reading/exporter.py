"""Metrics of plans, from the journal of operations and from the repositories' own records.

No number is lost by a restart, of this process or of those that do the work. The journal is read when somebody asks,
repositories beside that: a scrape waits for no storage.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import ConfigurationError, LastgoodError
from blocks.plan.objectives import rpo_target
from blocks.plan.plan import BackupPlan
from blocks.telemetry.published import checked_prefix
from flows.reading.plan_metrics import PlanState, series
from flows.reading.published_metrics import published
from flows.reading.repository_numbers import RepositoryReader
from flows.reporting.exposition import exposition
from flows.reporting.journal import local_repository_id, place_key
from flows.reporting.journal_files import journal_folder
from flows.reporting.journal_reader import JournalReader
from flows.reporting.journal_totals import Totals
from flows.reporting.plan_totals import PlanTotals

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""How often a repository is looked at where the journal does not say that anything happened there."""
STALE_SECONDS = 300.0
"""When a look takes longer than that, the repository cannot be read."""
FIRST_SECONDS = 5.0
"""How long the first looks are waited for, before anything is told."""
_SOON = 1.0


class _Watched:
    """One plan, and what was last seen of its repository.

    Args:
        plan: The plan, read and resolved.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self.plan, self.place = plan, place_key(plan)
        target = rpo_target(plan.objectives, plan.schedules, datetime.now(UTC))
        self.state = PlanState(plan, rpo_target=target)
        self.looked = threading.Event()
        """Set after the first look, however it ended."""
        self.wanted = threading.Event()
        """Set where a look is due."""
        self._reader = RepositoryReader(plan)
        self._repository_id: str | None = None
        self._ended = -1
        self._at = time.monotonic()
        self._failed = ""

    def look(self) -> None:
        """Look at the repository."""
        try:
            self._repository_id = self._repository_id or local_repository_id(self.plan.repository)
            numbers = self._reader.read()
            self._repository_id = numbers.repository_id
            target = rpo_target(self.plan.objectives, self.plan.schedules, numbers.newest_good or datetime.now(UTC))
            self.state = PlanState(self.plan, numbers, True, target, self._reader.place, self._reader.breaker)
            self._failed = ""
        except LastgoodError as exc:
            self._lost(exc.message)
        except Exception as exc:  # whatever it is: the other numbers go on
            self._lost(repr(exc))
            logger.debug("where it failed", exc_info=True)
        finally:
            self._at = time.monotonic()
            self.looked.set()

    def _lost(self, why: str) -> None:
        if why != self._failed:
            logger.warning("metrics of plan %s are those of the journal alone: %s", self.plan.name, why)
        self._failed = why
        self.state = replace(self.state, up=False, place=self._reader.place, breaker=self._reader.breaker)

    def current(self, totals: Totals) -> tuple[PlanState, PlanTotals]:
        """Return what is known now; where the journal says that something happened, another look is due."""
        found = totals.of(self.place, self._repository_id, self.plan.name)
        ended = sum(count for name, count in found.counts.items() if name[0] == "ended")
        if ended != self._ended:
            self._ended = ended
            self.wanted.set()
        stale = time.monotonic() - self._at > LOOK_SECONDS + STALE_SECONDS
        return (replace(self.state, up=False) if stale else self.state), found


class Exporter:
    """Makes the text of all metrics. Thread-safe.

    Args:
        plans: Read and resolved, each with a name of its own.
        folder: Of the journal; None where there is none.
        prefix: What stands before the published names.
    """

    def __init__(self, plans: Sequence[BackupPlan], folder: Path | None, prefix: str = "") -> None:
        self._watched = [_Watched(plan) for plan in plans]
        self._journal = JournalReader(folder) if folder is not None else None
        self._prefix = prefix
        self._guard = threading.Lock()
        self._ending = threading.Event()
        self._totals = Totals()
        self._known = self._journal is None
        self._unread = ""
        self._first_until = 0.0

    def text(self) -> str:
        """Return all metrics, as they are now; right after the start this waits a little for the first looks."""
        for one in self._watched:
            one.looked.wait(max(0.0, self._first_until - time.monotonic()))
        with self._guard:
            totals = self._read_journal()
            now = datetime.now(UTC)
            known = [one.current(totals) for one in self._watched]
            told = [*published([found for _, found in known], self._prefix), *series(known, now)]
            # counters that begin at zero, and have their count later, would pass for all of that happening then
            return exposition(told if self._known else [one for one in told if one.kind == "gauge"])

    def look(self) -> None:
        """Look at all repositories, one after another."""
        for one in self._watched:
            one.look()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at repositories now and then, for as long as the context lasts."""
        with self._guard:
            self._read_journal()
        self._first_until = time.monotonic() + FIRST_SECONDS
        for one in self._watched:
            # nothing waits for a storage that does not answer, not even the end of the process
            threading.Thread(target=self._watch, args=(one,), name=f"look-{one.plan.name}", daemon=True).start()
        try:
            yield
        finally:
            self._ending.set()
            for one in self._watched:
                one.wanted.set()

    def _watch(self, one: _Watched) -> None:
        while not self._ending.is_set():
            one.wanted.clear()
            one.look()
            one.wanted.wait(LOOK_SECONDS)
            # a run that has just ended is often followed by another one
            self._ending.wait(_SOON)

    def _read_journal(self) -> Totals:
        if self._journal is None:
            return self._totals
        try:
            found = self._journal.read()
        except (OSError, ValueError) as exc:
            if str(exc) != self._unread:
                logger.warning("the journal cannot be read: %s", exc)
            self._unread = str(exc)
            return self._totals
        self._known, self._unread = True, ""
        # where nothing is there any more its disk may not be mounted: it counts on when it is back, or begins anew
        if found.plans or not self._totals.plans:
            self._totals = found
        return self._totals


def exporter_of(plans: Sequence[BackupPlan], prefix: str | None = None) -> Exporter:
    """Return an exporter that reads the journal of this machine, or the one that `LASTGOOD_JOURNAL` names.

    Args:
        plans: Read and resolved, each with a name of its own.
        prefix: What stands before the published names; None for what all the plans say under `metrics`.

    Raises:
        ConfigurationError: It cannot stand there, or the plans do not agree.
    """
    before = _prefix(plans, prefix)
    try:
        folder = journal_folder()
    except RuntimeError as exc:
        logger.warning("there is no journal: %s", exc)
        folder = None
    return Exporter(plans, folder, before)


def _prefix(plans: Sequence[BackupPlan], given: str | None) -> str:
    if given is None:
        said = {plan.metrics.prefix for plan in plans}
        if len(said) > 1:
            raise ConfigurationError(
                f"the plans say different prefixes of metrics: {', '.join(repr(one) for one in sorted(said))}",
                hint="Name one with --prefix, or serve the plans apart.",
            )
        return next(iter(said), "")
    try:
        return checked_prefix(given)
    except ValueError as exc:
        raise ConfigurationError(
            f"{given!r} cannot be the prefix of a metric: {exc}", hint="Give another one."
        ) from exc
