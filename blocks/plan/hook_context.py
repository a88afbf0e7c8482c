"""What a hook is told of the run that it is of; and, run as a program, what calls a hook that is a Python function.

Nothing but the standard library is imported here: the program starts once for each such hook.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

_PREFIX = "LASTGOOD_"
_MOST_CHARACTERS = 4000
"""How much of an error is told: an environment has room for little."""


@dataclass
class HookContext:
    """What a hook is told; a program finds each in the environment, in capitals after `LASTGOOD_`, unless it is empty.

    Attributes:
        plan: Name of the plan.
        verb: `backup`, `restore`, `retention` or `verification`.
        moment: `before` or `after`.
        backup_type: Type of the backup that is made, restored or verified; until a backup is made, the type asked for.
        backup_id: Id of that backup, as soon as it is known.
        mode: Of a restore `exact` or `merge`; of a verification `deep`, `quick` or `due`.
        place: Of a restore `live`, or `other` where it is to another place.
        outcome: Afterwards `completed`, `partial`, `failed`, or `bad` where a verification found the backup bad.
        error: Afterwards why it did not complete, in words.
    """

    plan: str
    verb: str
    moment: str = "before"
    backup_type: str = ""
    backup_id: str = ""
    mode: str = ""
    place: str = ""
    outcome: str = ""
    error: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell all of it to a program."""
        told = {_variable(one.name): _plain(getattr(self, one.name)) for one in fields(self)}
        return {name: value for name, value in told.items() if value}


VARIABLES = frozenset(f"{_PREFIX}{one.name.upper()}" for one in fields(HookContext))
"""Names of all variables that may be told; where a hook runs lastgood itself, those of the outer run are not passed."""


def _variable(field: str) -> str:
    return f"{_PREFIX}{field.upper()}"


def _plain(value: str) -> str:
    return value.replace("\0", "")[:_MOST_CHARACTERS].encode("utf-8", "backslashreplace").decode()


def context_of(environment: Mapping[str, str]) -> HookContext:
    """Return what an environment tells."""
    return HookContext(**{one.name: environment.get(_variable(one.name), "") for one in fields(HookContext)})


def imported(path: str) -> Callable[[HookContext], object]:
    """Import `package.module:function`."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in name.split("."):
        found = getattr(found, attribute)
    function: Callable[[HookContext], object] = found
    return function


def call(function: Callable[[HookContext], object], context: HookContext) -> None:
    """Call a function with a context of its own, which it may keep.

    Raises:
        TypeError: Nothing of it ran: it is a coroutine function, or a generator.
    """
    returned = function(replace(context))
    if isinstance(returned, CoroutineType | GeneratorType | AsyncGeneratorType):
        if isinstance(returned, CoroutineType):
            returned.close()  # or Python warns of it, too
        raise TypeError("nothing of it ran, since it is async or a generator; write a plain function")


if __name__ == "__main__":
    call(imported(sys.argv[1]), context_of(os.environ))
