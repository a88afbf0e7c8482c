"""Whether this process has Prefect, and what blocks are made of with it and without.

Importing Prefect takes longer than most commands work. A command that takes its plan from a file and records no run
uses nothing of it: then blocks are plain models that can be read from a plan but neither saved nor loaded by name, and
stages are plain functions (flows/pipeline/prefect_compat.py). It also means that a restore on the worst day does not
need a Prefect that starts.

This is settled once: by a command or a function of `lastgood` before it imports anything else of ours, otherwise by the
first module that asks. So nothing here imports Prefect, pydantic or another module of ours before that.
"""

from __future__ import annotations

import os
import sys
from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = [
    "LastgoodBlock",
    "document",
    "import_blocks",
    "is_path",
    "keep_registered",
    "log_format",
    "needs_prefect",
    "prepare_prefect",
    "spare_prefect",
    "without_common_options",
    "without_prefect",
]

_PROJECT = "lastgood/lastgood"
_LOGO = f"https://raw.githubusercontent.com/{_PROJECT}/main/docs/images/logo.png"

_SETTINGS = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH")
_SWITCHES = ("--debug", "--quiet", "--verbose")
_LOG_FORMAT = "--log-format"
_WITH_VALUES_OF_METRICS = ("--serve", "--host", "--prefix")
_FILES = ("prefect.toml", ".env", "~/.prefect/profiles.toml")
"""Where Prefect looks for the address of a server."""


class _Process:
    """The one decision of this process; None until it is settled."""

    without_prefect: bool | None = None
    block: type[Any] | None = None
    making = Lock()
    importing = Lock()


def spare_prefect() -> None:
    """Do without Prefect in a process where nobody has imported it yet; where somebody has, change nothing.

    To be called before blocks and flows are imported; afterwards it changes nothing either. In an application that
    calls lastgood Prefect would take seconds to import, and would log through its root logger.
    """
    if _Process.without_prefect is None and "prefect" not in sys.modules:
        _Process.without_prefect = True


def without_prefect() -> bool:
    """Return whether this process does without Prefect; from now on that is settled."""
    if _Process.without_prefect is None:
        _Process.without_prefect = False
    return _Process.without_prefect


def import_blocks() -> None:
    """Import Prefect's blocks into a process that may have done without, one thread after the other.

    Its modules import each other in circles, at which several threads at once fail.
    """
    with _Process.importing:
        import prefect.blocks.abstract
        import prefect.blocks.system  # noqa: F401  it is imported elsewhere, too


def needs_prefect(words: Sequence[str]) -> bool:
    """Return whether a command line needs Prefect: for a plan by its name, or for a server that may be configured.

    Args:
        words: The words after `lastgood`.
    """
    said = list(words[: words.index("--")] if "--" in words else words)
    if {"-h", "--help"}.intersection(said):
        return False
    match without_common_options(said):
        case ["plan", "new", *_]:
            return False
        case ["plan" | "quality", "check", plan, *_]:
            return not is_path(plan)
        case ["backup", plan, *options] if "--dry-run" in options:
            return not is_path(plan)
        case ["serve" | "deploy" | "demo" | "plan" | "approve", *_]:
            return True
        case ["key", _, plan, *_] | [
            "init" | "list" | "stats" | "show" | "proof" | "diff" | "check" | "unlock",
            plan,
            *_,
        ]:
            return not is_path(plan)
        case ["metrics", *options]:
            given = zip(["", *options], options, strict=False)
            plans = [word for before, word in given if before not in _WITH_VALUES_OF_METRICS]
            return not all(is_path(word) for word in plans if not word.startswith("-"))
        case ["status", *plans]:
            return not all(is_path(word) for word in plans if not word.startswith("-"))
        case ["ls" | "cat" | "export" | "query", plan, *_]:
            return not is_path(plan)
        case ["backup" | "restore" | "undo" | "verify" | "retention", plan, *options]:  # a server records these
            return not is_path(plan) or ("--no-server" not in options and _may_have_server())
        case _:  # nothing is done with a plan
            return False


def without_common_options(words: Sequence[str]) -> list[str]:
    """Return the words after `lastgood` without the options of every command; what follows `--` is no option."""
    kept: list[str] = []
    before = ""
    for number, word in enumerate(words):
        if word == "--":
            return [*kept, *words[number:]]
        if before != _LOG_FORMAT and word not in (*_SWITCHES, _LOG_FORMAT) and not word.startswith(f"{_LOG_FORMAT}="):
            kept.append(word)
        before = "" if before == _LOG_FORMAT else word
    return kept


def log_format(words: Sequence[str]) -> str:
    """Return the format of the log as it was asked for by `--log-format`, else by the environment; `text` by default.

    Args:
        words: The words after `lastgood`.
    """
    said = list(words[: list(words).index("--")] if "--" in words else words)
    for number, word in enumerate(said):
        if word == _LOG_FORMAT:
            return said[number + 1] if number + 1 < len(said) else ""
        if word.startswith(f"{_LOG_FORMAT}="):
            return word.partition("=")[2]
    return os.environ.get("LASTGOOD_LOG", "").strip().lower() or "text"


def is_path(reference: str) -> bool:
    """Return whether a plan is meant as a file rather than as the name of a block that Prefect keeps."""
    return Path(reference).suffix in (".yaml", ".yml") or os.sep in reference


def prepare_prefect(*, quiet: bool) -> None:
    """Set what Prefect must know before it is imported into a command's process.

    Args:
        quiet: Keep the log of runs off the terminal, where it would drown the result; the UI has it.
    """
    # a command never starts a server behind the user's back
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    # nor sends usage data of people who did not choose Prefect, which would say so among the command's own lines
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def _may_have_server() -> bool:
    """Return whether Prefect's settings could name a server, without importing Prefect."""
    named = any(name in os.environ for name in _SETTINGS)
    return named or any(Path(name).expanduser().exists() for name in _FILES) or _project_has_settings()


def _project_has_settings() -> bool:
    try:
        return b"[tool.prefect" in Path("pyproject.toml").read_bytes()
    except OSError:
        return False


def keep_registered(block: type[Any]) -> None:
    """Let Prefect know a block by its slug although another class has taken that."""
    if without_prefect():
        return
    import warnings

    from prefect.utilities.dispatch import register_type

    with warnings.catch_warnings(action="ignore"):  # that the other one goes
        register_type(block)


def document(path: str) -> str:
    """Return the address of a document of the project."""
    return f"https://github.com/{_PROJECT}/blob/main/{path}"


if TYPE_CHECKING:
    from prefect.blocks.core import Block

    class LastgoodBlock(Block, ABC):
        """Base of all blocks: the logo, and a document unless a block names another."""

        _logo_url: ClassVar[Any]
        _documentation_url: ClassVar[Any]

else:

    def __getattr__(name: str) -> object:
        """Make the base of all blocks when the first of them asks for it."""
        if name != "LastgoodBlock":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with _Process.making:  # modules of blocks may be imported by several threads
            if _Process.block is None:
                _Process.block = _made()
            return _Process.block


def _made() -> type[Any]:
    base: Any
    if without_prefect():
        from pydantic import BaseModel as base
    else:
        from prefect.blocks.core import Block as base

    class LastgoodBlock(base, ABC):  # type: ignore[misc]  # what it derives from is known only now
        """Base of all blocks: the logo, and a document unless a block names another; never registered itself."""

        _logo_url: ClassVar[Any] = _LOGO
        _documentation_url: ClassVar[Any] = document("README.md")

    return LastgoodBlock
