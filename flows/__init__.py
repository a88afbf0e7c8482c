"""The verbs of lastgood, each a Prefect flow: `from flows import backup, restore, verify, retention`."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.backup import backup
    from flows.restore import restore
    from flows.retention import retention
    from flows.verify import verify

__all__ = ["backup", "restore", "retention", "verify"]


class _Verbs(ModuleType):
    """Imports a verb when it is first asked for, so that a command that only reads starts without the engine.

    A verb bears the name of its module; whichever way the module comes in, the name stays the verb's.
    """

    def __getattr__(self, name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        import_module(f"{self.__name__}.{name}")
        return self.__dict__[name]

    def __setattr__(self, name: str, value: object) -> None:
        is_module = name in __all__ and isinstance(value, ModuleType)
        super().__setattr__(name, getattr(value, name) if is_module else value)


sys.modules[__name__].__class__ = _Verbs
