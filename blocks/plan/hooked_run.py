"""The hooks of one run: what they are started with, what they said, and what their failure does to the run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    HookFailed,
    LastgoodError,
    NotRestorable,
    Partial,
    QualityFailed,
)
from blocks.host.interrupts import Postponed, postponed
from blocks.host.passwords import masked
from blocks.plan.hook_context import VARIABLES, HookContext, call
from blocks.plan.hooks import NO_CALLS, Call, Calls, Hook, HookPair, Hooks
from blocks.records import BackupMetadata

OUTPUT_BYTES = 8 * 1024
"""How much of what a hook said is kept: the end of it."""

_KEPT_BYTES = 2 * OUTPUT_BYTES
"""How much of it is read: from less, half of a secret could be left."""

_MOST_BYTES = 16 * 1024 * 1024
"""How much room on disk what it said may take while it runs, about."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TAIL_CHARACTERS = 2000
"""How much of that an error shows."""
_LOOK_SECONDS = 0.1
"""How often somebody who waits for a hook looks whether the run is to end."""
_BAD = (CorruptionDetected, NotRestorable, QualityFailed)
"""What a verification that found a backup bad amounts to."""
_DONE = {
    "backup": "the backup is made",
    "restore": "the backup is restored",
    "retention": "retention is done",
    "verification": "the verification is done",
}


@dataclass(frozen=True)
class HookRun:
    """One hook that ran.

    Attributes:
        where: Where it stands in the plan, such as `hooks.backup.before`.
        name: What messages call it.
        exit_code: That of its process, negative for a signal; None where it was not started, or did not end by itself.
        seconds: How long it took.
        output: The end of what it said, stdout and stderr, without secrets.
        error: What went wrong; empty where nothing did.
    """

    where: str
    name: str
    exit_code: int | None
    seconds: float
    output: str = ""
    error: str = ""


class HookedRun:
    """The hooks of one run of a verb. The verb says what it learns of itself in `context`, `made` and `found`.

    Args:
        hooks: Those of the plan.
        context: What they are told.
        private: Names of environment variables that they do not see.
        record: Is given each hook that ran.
        calls: What a program has called.
    """

    def __init__(
        self,
        hooks: Hooks,
        context: HookContext,
        private: Collection[str] = (),
        record: Callable[[HookRun], None] = lambda _: None,
        calls: Calls | None = None,
    ) -> None:
        self._hooks, self._private, self._record, self._calls = hooks, set(private), record, calls or NO_CALLS
        self.context = context
        self.found: LastgoodError | None = None
        """What the verb amounts to, where it ends well and its result is not good."""

    def made(self, backup: BackupMetadata) -> None:
        """Tell hooks from now on which backup it is."""
        self.context.backup_id, self.context.backup_type = backup.backup_id, backup.backup_type.value

    def keep_from(self, variables: Collection[str]) -> None:
        """Let hooks not see some more environment variables."""
        self._private |= set(variables)

    def around_verb(self) -> AbstractContextManager[None]:
        """Run the hooks of the verb around a block, and what a program has called outside of them.

        Raises:
            ConfigurationError: A hook cannot be started, or is to be given what there is not.
            HookFailed: A hook before the block failed; the block was not begun.
            Partial: All went well, and then a hook after the block failed.
        """
        return self._around(f"hooks.{self.context.verb}", self._hooks.of(self.context.verb), self._calls)

    def around_reading(self) -> AbstractContextManager[None]:
        """Run the hooks of the reading of state around a block; raises as `around_verb` does."""
        return self._around("hooks", self._hooks.reading, NO_CALLS)

    @contextmanager
    def _around(self, where: str, pair: HookPair, calls: Calls) -> Iterator[None]:
        if not pair and calls == NO_CALLS:
            yield
            return
        for hook in (*pair.before, *pair.after):
            hook.additions(os.environ)
        try:
            self.context.moment = "before"
            if calls.before is not None:
                self._call(f"{where}.before", calls.before)
            for hook in pair.before:
                with postponed() as interrupts:
                    self._run(f"{where}.before", hook, interrupts)
            yield
        except BaseException as exc:
            if failures := self._run_after(where, pair, calls, exc):
                _add(exc, "; ".join(failures))
            raise
        if failures := self._run_after(where, pair, calls, self.found):
            if self.found is not None:
                _add(self.found, "; ".join(failures))
                raise self.found
            raise Partial(
                f"plan {self.context.plan}: {_DONE[self.context.verb]}, but afterwards {'; '.join(failures)}",
                hint="See that what the hooks paused goes on.",
            )

    def _run_after(self, where: str, pair: HookPair, calls: Calls, error: BaseException | None) -> list[str]:
        """Run all hooks of the end, also when one of them fails; return what went wrong.

        Somebody who ends the run meanwhile waits for them, unless the run was ended before, or is ended twice.
        """
        told = self.context
        told.moment, told.outcome = "after", _outcome(told.verb, error)
        told.error = "" if error is None else self._masked(_sentence(error), [])
        failures = []
        ended = error is not None and not isinstance(error, Exception)
        with postponed(patience=0 if ended else 1, ended=ended) as interrupts:
            for hook in pair.after:
                try:
                    self._run(f"{where}.after", hook, interrupts)
                except Exception as exc:  # noqa: BLE001  whatever it is: the others run all the same
                    failures.append(_sentence(exc))
        if calls.after is not None:
            try:
                self._call(f"{where}.after", calls.after)
            except LastgoodError as exc:
                failures.append(exc.message)
        return failures

    def _run(self, where: str, hook: Hook, interrupts: Postponed) -> None:
        """Run a hook, and record it, also where it failed."""
        inherited = {n: v for n, v in os.environ.items() if n not in self._private and n not in VARIABLES}
        environment = inherited | hook.additions(os.environ) | self.context.environment
        started, code, output, error = time.monotonic(), None, "", "was interrupted"
        # a file, and no pipe: a service that the command leaves behind may hold its output open for ever
        with _output_file() as said:
            try:
                code = _exit_code(hook, environment, said, interrupts)
                error = _failure(hook, code)
            except LastgoodError as exc:
                error = exc.message
                raise
            finally:
                output = self._said(said, hook)
                self._record(HookRun(where, hook.name, code, _since(started), output, error))
        if error:
            raise HookFailed(f"the hook {hook.name} {error}{f': {output[-_TAIL_CHARACTERS:]}' if output else ''}")

    def _call(self, where: str, function: Call) -> None:
        """Call a function of the program. It has no timeout: nobody can end a thread."""
        name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"
        started, error = time.monotonic(), ""
        try:
            call(function, self.context)
        except Exception as exc:
            error = self._masked(f"{type(exc).__name__}: {exc}", [])
            raise HookFailed(f"the hook {name} failed: {error}") from exc
        finally:
            self._record(HookRun(where, name, None, _since(started), error=error))

    def _said(self, said: IO[bytes], hook: Hook) -> str:
        """Return the end of what a hook said, without secrets; more is read than kept, or half of one could be."""
        end = said.seek(0, os.SEEK_END)
        said.seek(max(0, end - _KEPT_BYTES))
        # bytes that are no UTF-8 stay what they are until secrets were looked for, which may hold some
        text = self._masked(said.read().decode(errors="surrogateescape"), hook.passed(os.environ))
        return _readable(text).strip()[-OUTPUT_BYTES:]

    def _masked(self, text: str, more: Collection[str]) -> str:
        return masked(text, [*(os.environ.get(name, "") for name in self._private), *more])


def _exit_code(hook: Hook, environment: Mapping[str, str], said: IO[bytes], interrupts: Postponed) -> int | None:
    """Start a hook and wait for it. Who ends the run meanwhile kills it, with all that it started.

    Nothing is raised by a signal but where `interrupts` lets it: in the middle of starting a process it would leave
    one that nobody knows of.

    Returns:
        Its exit code; None where it took too long, and was killed.

    Raises:
        ConfigurationError: It cannot be started.
    """
    try:
        child = subprocess.Popen(  # noqa: S603  the plan's own command, without a shell
            hook.words,
            cwd=hook.folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    except OSError as exc:
        raise ConfigurationError(
            f"the hook {hook.name} cannot be started: {exc.strerror}: {exc.filename}",
            hint="Check `hooks` in the plan; a relative path counts from the plan's folder.",
        ) from exc
    deadline = time.monotonic() + hook.timeout_seconds
    try:
        while True:
            if interrupts.asked_again:
                _end(child)  # who is told may end this process at once
            interrupts.deliver()
            _shorten(said)
            left = deadline - time.monotonic()
            with suppress(subprocess.TimeoutExpired):
                return child.wait(min(_LOOK_SECONDS, max(left, 0)))
            if left <= 0:
                return None
    finally:
        _end(child)


def _output_file() -> IO[bytes]:
    """Return where a hook's output goes; where no file can be made, it is lost, and the hook runs all the same."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")


def _shorten(said: IO[bytes]) -> None:
    """Give back the room of all but the end of what a hook said so far: it may say anything, for as long as it runs.

    The position that the hook writes at stays: before the end the file is a hole then.
    """
    status = os.fstat(said.fileno())
    if status.st_blocks * 512 <= _MOST_BYTES:
        return
    start = max(0, status.st_size - _KEPT_BYTES)
    end = os.pread(said.fileno(), _KEPT_BYTES, start)
    with suppress(OSError):  # no room: then it is lost
        os.ftruncate(said.fileno(), 0)
        os.pwrite(said.fileno(), end, start)


def _readable(text: str) -> str:
    """Return a text without what would do something to a terminal, or what a database does not take."""
    known = text.encode(errors="surrogateescape").decode(errors="replace")
    lines = known.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", lines)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill a command that still runs, with all that it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _failure(hook: Hook, code: int | None) -> str:
    """Say what a hook did wrong; nothing where it did nothing wrong."""
    if code is None:
        return f"took longer than {hook.timeout_seconds:g} seconds and was killed"
    if code == 0:
        return ""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _outcome(verb: str, error: BaseException | None) -> str:
    if error is None:
        return "completed"
    if isinstance(error, Partial):
        return "partial"
    return "bad" if verb == "verification" and isinstance(error, _BAD) else "failed"


def _sentence(error: BaseException) -> str:
    if isinstance(error, LastgoodError):
        return error.message
    if not isinstance(error, Exception):  # Ctrl-C, SIGTERM, whatever raises for them
        return "interrupted"
    return f"{type(error).__name__}: {error}"


def _add(error: BaseException, more: str) -> None:
    """Add to an error what went wrong after it."""
    if isinstance(error, LastgoodError):
        error.message += f"; and afterwards {more}"
        error.args = (error.message,)
    else:
        error.add_note(more)
