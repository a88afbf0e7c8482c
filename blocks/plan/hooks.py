"""Hooks: a user's commands and functions before and after each verb, and around the reading of state."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from blocks.errors import ConfigurationError
from blocks.host.passwords import command_has_password, has_password
from blocks.plan import hook_context

VERBS = ("backup", "restore", "retention", "verification")
"""What has hooks of its own, as `hooks` names it."""

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSED = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


Call = Callable[[hook_context.HookContext], object]
"""A function of a program that calls lastgood; it is called in that program's own process."""


@dataclass(frozen=True)
class Calls:
    """Functions that are called around each verb."""

    before: Call | None = None
    after: Call | None = None


NO_CALLS = Calls()


class Hook(BaseModel):
    """One command, which runs without a shell, or one Python function; in a plan a command may be written alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    command: tuple[str, ...] = Field(
        default=(), description="Program and arguments, as a list, or as text that is split as a shell would."
    )
    python: str | None = Field(
        default=None,
        description="Instead of a command: a function as package.module:function, of a package that is installed. It "
        "is called in a process of its own, with an object that says what the run is and what came of it.",
    )
    timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="After how long, in seconds, it is killed and counts as failed.",
    )
    folder: Path | None = Field(default=None, description="Where it runs: the plan's folder unless set otherwise.")
    env: dict[str, str] = Field(
        default_factory=dict,
        description="Variables that it finds in its environment, beside those of lastgood. A value $NAME is that of "
        "another variable, also of one that hooks do not see otherwise; secrets are given only so.",
    )

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
    def _can_be_started(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and not command[0].strip():
            raise ValueError("the program has no name")
        if not all(map(_can_be_given, command)):
            raise ValueError("there is a character in it that no program can be given")
        return command

    @field_validator("folder")
    @classmethod
    def _can_be_a_folder(cls, folder: Path | None) -> Path | None:
        if folder is not None and not _can_be_given(str(folder)):
            raise ValueError("there is a character in it that no folder has")
        return folder

    @field_validator("command")
    @classmethod
    def _names_no_password(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command_has_password(command):
            raise ValueError(
                f"there is a password in the command of the hook {Path(command[0]).name}, where it would be kept; "
                "let the program read it from a file or a variable"
            )
        return command

    @field_validator("python")
    @classmethod
    def _names_a_function(cls, python: str | None) -> str | None:
        if python is not None and _FUNCTION.fullmatch(python) is None:
            raise ValueError("write package.module:function")
        return python

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not _VARIABLE_NAME.fullmatch(name):
                raise ValueError("names of variables are letters, digits and underscores")
            if name in hook_context.VARIABLES:
                raise ValueError(f"{name} is set by lastgood")
            if not _can_be_given(value):
                raise ValueError(f"the value of {name} cannot be that of a variable")
            if _PASSED.fullmatch(value) is None and (has_password(f"{name}={value}") or has_password(value)):
                raise ValueError(
                    f"there is a secret in {name}, where it would be kept and shown; write $NAME, with the name of the "
                    "variable that holds it"
                )
        return env

    @model_validator(mode="after")
    def _one_thing(self) -> Hook:
        if bool(self.command) == bool(self.python):
            raise ValueError("write either a command or `python`, which names a function")
        return self

    def anchored(self, folder: Path) -> Hook:
        """Return a copy that runs in a folder, or in its own below that."""
        return self.model_copy(update={"folder": folder / self.folder.expanduser() if self.folder else folder})

    @property
    def name(self) -> str:
        """What messages call it; its arguments may hold secrets."""
        return self.python or Path(self.command[0]).name

    @property
    def words(self) -> tuple[str, ...]:
        """Program and arguments. A function gets a process too: that can be killed, and a thread cannot."""
        if self.python is None:
            return self.command
        # without the folder that the program lies in on Python's path, or the one that it runs in
        return (sys.executable, "-P", hook_context.__file__, self.python)

    def additions(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that are added to its environment.

        Args:
            given: Where values that are named are looked up.

        Raises:
            ConfigurationError: One that is named is not set.
        """
        return {name: self._value(name, value, given) for name, value in self.env.items()}

    def passed(self, given: Mapping[str, str]) -> list[str]:
        """Return the values of variables that it names."""
        found = (_PASSED.fullmatch(value) for value in self.env.values())
        return [given.get(named[1] or named[2], "") for named in found if named]

    def _value(self, name: str, value: str, given: Mapping[str, str]) -> str:
        named = _PASSED.fullmatch(value)
        if named is None:
            return value
        variable = named[1] or named[2]
        if variable not in given:
            raise ConfigurationError(
                f"the hook {self.name} is to be given {variable} as {name}, and there is no such environment variable",
                hint="Set it, or check `env` of the hook in the plan.",
            )
        return given[variable]


def _can_be_given(text: str) -> bool:
    """Whether the system can give a text to a program."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


class HookPair(BaseModel):
    """What runs before something, and after it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    before: tuple[Hook, ...] = Field(
        default=(), description="Hooks that run first, in order; one that fails stops the run before anything is done."
    )
    after: tuple[Hook, ...] = Field(
        default=(), description="Hooks that run at the end, always: also when the run or another hook has failed."
    )

    def __bool__(self) -> bool:
        """Whether there is any hook."""
        return bool(self.before or self.after)

    def anchored(self, folder: Path) -> HookPair:
        """Return a copy whose hooks run in a folder."""
        return HookPair(
            before=tuple(hook.anchored(folder) for hook in self.before),
            after=tuple(hook.anchored(folder) for hook in self.after),
        )


class Hooks(BaseModel):
    """What runs around the reading of state in a backup (`before` and `after`), and around each verb as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    before: tuple[Hook, ...] = Field(
        default=(),
        description="Hooks of a backup that let writers pause; one that fails stops it before anything is read.",
    )
    after: tuple[Hook, ...] = Field(
        default=(),
        description="Hooks of a backup that let writers go on; they always run, also when something failed.",
    )
    backup: HookPair = Field(default_factory=HookPair, description="Before and after a backup as a whole.")
    restore: HookPair = Field(
        default_factory=HookPair, description="Before and after a restore; before its backup of live state, too."
    )
    retention: HookPair = Field(default_factory=HookPair, description="Before and after a retention run.")
    verification: HookPair = Field(default_factory=HookPair, description="Before and after a verification.")

    _calls: Calls = PrivateAttr(default=NO_CALLS)

    @property
    def calls(self) -> Calls:
        """What a program has called around each verb; no plan says it."""
        return self._calls

    def calling(self, before: Call | None, after: Call | None) -> Hooks:
        """Return a copy with functions of this program, which are called outside of all other hooks.

        Raises:
            ConfigurationError: One cannot be called, or is a coroutine function.
        """
        for name, call in (("before", before), ("after", after)):
            if call is not None and (not callable(call) or inspect.iscoroutinefunction(call)):
                raise ConfigurationError(
                    f"what is to be called {name} is {call!r}, and no plain function",
                    hint="Give a function with one argument; `asyncio.run` calls a coroutine function in it.",
                )
        made = self.model_copy()
        made._calls = Calls(before, after)
        return made

    @property
    def reading(self) -> HookPair:
        """Those around the reading of state."""
        return HookPair(before=self.before, after=self.after)

    def of(self, verb: str) -> HookPair:
        """Return those of one of the `VERBS`."""
        pair: HookPair = getattr(self, verb)
        return pair

    def all(self) -> tuple[Hook, ...]:
        """Return all hooks, in no order of time."""
        pairs = (self.reading, *(self.of(verb) for verb in VERBS))
        return tuple(hook for pair in pairs for hook in (*pair.before, *pair.after))

    def anchored(self, folder: Path) -> Hooks:
        """Return a copy whose hooks run in a folder."""
        reading = self.reading.anchored(folder)
        pairs = {verb: self.of(verb).anchored(folder) for verb in VERBS}
        return self.model_copy(update={"before": reading.before, "after": reading.after} | pairs)
