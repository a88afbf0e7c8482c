"""Hooks: a user's commands around the reading of state, to let writers pause while it is read."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from blocks.errors import ConfigurationError, LastgoodError, Partial, SourceUnavailable
from blocks.host.passwords import command_has_password

_TAIL_BYTES = 2000
"""How much of what a failed command said is shown."""


class Hook(BaseModel):
    """One command. It runs without a shell; in a plan it may be written as text or as a list alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    command: tuple[str, ...] = Field(
        min_length=1, description="Program and arguments, as a list, or as text that is split as a shell would."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="After how long, in seconds, it is killed and counts as failed."
    )
    folder: Path | None = Field(default=None, description="Where it runs: the plan's folder unless set otherwise.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"command": given} if isinstance(given, str | list | tuple) else given

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, command: Any) -> Any:
        return shlex.split(command) if isinstance(command, str) else command

    @field_validator("command")
    @classmethod
    def _names_no_password(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command_has_password(command):
            raise ValueError(
                f"there is a password in the command of the hook {Path(command[0]).name}, where it would be kept; "
                "let the program read it from a file or a variable"
            )
        return command

    def anchored(self, folder: Path) -> Hook:
        """Return a copy that runs in a folder, or in its own below that."""
        return self.model_copy(update={"folder": folder / self.folder.expanduser() if self.folder else folder})

    @property
    def program(self) -> str:
        """What messages call it; its arguments may hold secrets."""
        return Path(self.command[0]).name

    def run(self, environment: Mapping[str, str]) -> None:
        """Run the command and wait for it.

        Args:
            environment: All of its environment.

        Raises:
            ConfigurationError: It cannot be started.
            SourceUnavailable: It failed or took too long; the end of what it said is shown.
        """
        # a file, and no pipe: a service that the command leaves behind may hold its output open for ever
        with tempfile.TemporaryFile() as said:
            try:
                child = subprocess.Popen(  # noqa: S603  the plan's own command, without a shell
                    self.command,
                    cwd=self.folder,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as exc:
                raise ConfigurationError(
                    f"the hook {self.program} cannot be started: {exc.strerror}: {exc.filename}",
                    hint="Check `hooks` in the plan; a relative path counts from the plan's folder.",
                ) from exc
            try:
                code = child.wait(self.timeout_seconds)
            except subprocess.TimeoutExpired:
                # that error repeats the arguments
                raise SourceUnavailable(
                    f"the hook {self.program} took longer than {self.timeout_seconds:g} seconds and was killed"
                    f"{_tail(said)}"
                ) from None
            finally:
                _end(child)
            if code:
                how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise SourceUnavailable(f"the hook {self.program} {how}{_tail(said)}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill a command that still runs, with all that it started."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tail(said: IO[bytes]) -> str:
    end = said.seek(0, os.SEEK_END)
    said.seek(max(0, end - _TAIL_BYTES))
    text = said.read().decode(errors="replace").strip()
    return f": {text}" if text else ""


class Hooks(BaseModel):
    """What runs before the first source is opened, and after the last one was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    before: tuple[Hook, ...] = Field(
        default=(), description="Commands that run first; one that fails stops the backup before anything is read."
    )
    after: tuple[Hook, ...] = Field(
        default=(), description="Commands that run at the end, always: also when the backup or a hook has failed."
    )

    def anchored(self, folder: Path) -> Hooks:
        """Return a copy whose commands run in a folder."""
        return Hooks(
            before=tuple(hook.anchored(folder) for hook in self.before),
            after=tuple(hook.anchored(folder) for hook in self.after),
        )

    @contextmanager
    def around(self, plan: str, backup_type: str, private: Collection[str] = ()) -> Iterator[None]:
        """Run the hooks around a block.

        Args:
            plan: Name of the plan, which the commands see as LASTGOOD_PLAN.
            backup_type: Seen as LASTGOOD_BACKUP_TYPE.
            private: Names of environment variables that they do not see.

        Raises:
            ConfigurationError: A hook before the block cannot be started.
            SourceUnavailable: A hook before the block failed.
            Partial: All went well, and then a hook after the block failed.
        """
        told = {"LASTGOOD_PLAN": plan, "LASTGOOD_BACKUP_TYPE": backup_type}
        environment = {name: value for name, value in os.environ.items() if name not in private} | told
        try:
            for hook in self.before:
                hook.run(environment)
            yield
        except BaseException as exc:
            if failures := self._run_after(environment):
                _add(exc, "; ".join(failures))
            raise
        if failures := self._run_after(environment):
            raise Partial(
                f"plan {plan}: the backup is made, but afterwards {'; '.join(failures)}",
                hint="See that what the hooks paused goes on.",
            )

    def _run_after(self, environment: Mapping[str, str]) -> list[str]:
        """Run all hooks of the end, also when one of them fails; return what went wrong."""
        failures = []
        for hook in self.after:
            try:
                hook.run(environment)
            except LastgoodError as exc:
                failures.append(exc.message)
        return failures


def _add(error: BaseException, more: str) -> None:
    """Add to an error what went wrong after it."""
    if isinstance(error, LastgoodError):
        error.message += f"; and afterwards {more}"
        error.args = (error.message,)
    else:
        error.add_note(more)
