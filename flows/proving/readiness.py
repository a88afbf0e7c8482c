"""Whether all that a plan needs is there: sources, credential, repository, suites, hooks, places for proofs, metrics.

Each thing is looked at by itself, so that all that is missing is said at once. Nothing is written.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blocks.crypto.keyring import Keyring, Role
from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CouldNotBeTried,
    LastgoodError,
    ProgramMissing,
    RepositoryFull,
    RepositoryUnavailable,
)
from blocks.plan.hooks import Hook
from blocks.plan.plan import BackupPlan
from blocks.plan.quality.suite import HINT
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import Repository
from flows.proving.suite_check import check_suites
from flows.reporting.units import human_bytes
from flows.restoring.places import settle_places


@dataclass(frozen=True)
class Readiness:
    """One thing that a plan needs.

    Attributes:
        what: Its name, such as `source ledger`.
        sentence: What is there, or what is wrong.
        hint: What can be done; empty where it is ready.
        exit_code: That of what is wrong; 0 where it is ready.
    """

    what: str
    sentence: str
    hint: str = ""
    exit_code: int = 0

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.exit_code


def readiness(plan: BackupPlan, notify: bool = False) -> Iterator[Readiness]:
    """Look at all that a plan needs, one after another; a server that does not answer is waited for.

    Args:
        plan: The plan.
        notify: Also send a test message to all that the plan's `notifications` name.
    """
    yield _tried("places", lambda: _places(plan))
    reached = []
    for name, source in plan.sources.items():
        found = _tried(f"source {name}", source.reach)
        reached += [name] if found.ready else []
        yield found
    credential, place = _tried("credential", lambda: _credential(plan)), _tried("repository", lambda: _place(plan))
    yield from (credential, place)
    opened = _Opened(plan)
    if credential.ready and place.ready:
        yield _tried("keys", opened.keys)
    if opened.repository is not None:
        yield _tried("room", opened.room)
    yield from _suites(plan, opened.newest)
    for hook in plan.hooks.all():
        yield _tried(f"hook {hook.name}", partial(_hook, hook))
    if plan.metrics.sends:
        yield _tried("metrics", plan.metrics.reach)
    yield from _notified(plan) if notify else _notifications(plan)
    for name in reached:  # of others all is said
        yield from _scratch(f"scratch restore of {name}", plan.sources[name].scratch_need)


class _Opened:
    """The repository, where the credential opens it.

    Attributes:
        repository: It; None as long as it is not open.
        newest: The newest backup of the plan; None where there is none.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._plan = plan
        self.repository: Repository | None = None
        self.newest: BackupMetadata | None = None

    def keys(self) -> str:
        self.repository = self._plan.repository.unlock(self._plan.encryption)
        with suppress(BackupNotFound):
            self.newest = self.repository.find(self._plan.name)
        role = self.repository.keys.role
        if not isinstance(self._plan.encryption, Keyring):
            return "not needed"
        may = "backs up, verifies and restores" if role is Role.READER else "backs up, and cannot read backups"
        return f"the credential is a {role.value}'s: it {may}"

    def room(self) -> str:
        """Compare what is free with the newest backup that stands alone; who has none may need any amount."""
        assert self.repository is not None
        plan = self._plan
        stock = self.repository.stock(plan.name)
        full = self.repository.newest(plan.name, stock, (BackupType.FULL,)).backup
        needed = full.size_stored if full is not None else 0
        said = f"the newest full backup took {human_bytes(needed)}" if full else "there is no full backup yet"
        if plan.repository.folder is None:
            return f"{said}; how much is free is not known of a storage in a network"
        free = shutil.disk_usage(plan.repository.folder).free
        if free < needed:
            raise RepositoryFull(
                f"{human_bytes(free)} are free at {plan.repository.folder}, and {said}",
                hint="Make room there, or let `lastgood retention` remove backups.",
            )
        return f"{human_bytes(free)} free; {said}"


def _tried(what: str, look: Callable[[], str]) -> Readiness:
    try:
        return Readiness(what, look())
    except LastgoodError as exc:
        return Readiness(what, exc.message, exc.hint, exc.exit_code)


def _scratch(what: str, look: Callable[[], str | None]) -> Iterator[Readiness]:
    try:
        if (need := look()) is not None:
            yield Readiness(what, need)
    except LastgoodError as exc:
        yield Readiness(what, exc.message, exc.hint, CouldNotBeTried.exit_code)


def _places(plan: BackupPlan) -> str:
    settle_places(plan)
    return "sources, repository and plan are apart"


def _credential(plan: BackupPlan) -> str:
    if not isinstance(plan.encryption, Keyring):
        return "none: the backups are not encrypted"
    return f"the {plan.encryption.credential.resolve().kind.value} can be read"


def _place(plan: BackupPlan) -> str:
    config = plan.repository.read_config()
    folder = plan.repository.folder
    if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
        raise RepositoryUnavailable(
            f"the repository {folder} may not be written by this user", hint="Change its owner or its mode."
        )
    proved = config.capabilities
    once = "" if proved is None or proved.exclusive_creation else "; its storage lets objects be created twice"
    return f"{plan.repository.url}, id {config.repository_id}{once}"


def _suites(plan: BackupPlan, newest: BackupMetadata | None) -> Iterator[Readiness]:
    if not plan.quality:
        return
    found = check_suites(plan.quality, newest)
    for fault in found.faults:
        yield Readiness("suite", str(fault), HINT, ConfigurationError.exit_code)
    wrong = {(fault.file, fault.suite) for fault in found.faults}
    for file, suite, about in found.suites:
        if (file, suite.name) not in wrong:
            seen = f"about {', '.join(about)}" if newest is not None else "its collections are known after a backup"
            yield Readiness(f"suite {suite.name}", f"{len(suite.expectations)} expectations, {seen}")


def _notifications(plan: BackupPlan) -> Iterator[Readiness]:
    for target in plan.notifications:
        yield _tried(f"notification {target.shown}", target.check)


def _notified(plan: BackupPlan) -> Iterator[Readiness]:
    if not plan.notifications:
        yield Readiness("notifications", "the plan names nobody who is told, so no test was sent")
        return
    from flows.reporting.notifications import try_targets  # few plans are tried so

    for told in try_targets(plan):
        what, error = f"notification {told.target.shown}", told.error
        if error is not None:
            yield Readiness(what, f"the test was not sent: {error.message}", error.hint, error.exit_code)
        else:
            yield Readiness(what, "a test was sent")


def _hook(hook: Hook) -> str:
    """Find the program as `Popen` would: a path counts from the folder that the hook runs in."""
    hook.additions(os.environ)
    if hook.folder is not None and not hook.folder.is_dir():
        raise ConfigurationError(f"its folder {hook.folder} is not there", hint="Check `hooks` in the plan.")
    if hook.python is not None:
        return _package(hook.python)
    program = hook.command[0]
    there = str((hook.folder or Path()) / program) if os.sep in program else program
    found = shutil.which(there)
    if found is None:
        raise ProgramMissing(
            f"there is no program {program} that this user may start", hint="Install it, or check `hooks` in the plan."
        )
    return found


def _package(function: str) -> str:
    """Find the package of a function without importing it, which would run its code."""
    package = re.split("[.:]", function)[0]
    found = None
    with suppress(ValueError):  # what is no package of its own, such as __main__
        found = importlib.util.find_spec(package)
    if found is None:
        raise ConfigurationError(
            f"there is no Python package {package} here", hint="Install it, or check `hooks` in the plan."
        )
    return f"{function}, of {found.origin or package}"
