"""How a command was asked to speak (`--quiet`, `--verbose`, `--json`, `--log-format`), and what waits for a result."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from blocks.prefect_compat import log_format


@dataclass
class Manner:
    """How one command speaks. Thread-safe.

    Attributes:
        quiet: Whether only warnings and errors are printed, and JSON that was asked for.
        verbose: Whether all is, also where nobody looks on.
        json: Whether results, warnings and errors are printed as JSON.
        logs_json: Whether all that goes to stderr is lines of JSON.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    logs_json: bool = False
    _warnings: list[str] = field(default_factory=list)
    _delivered: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def watched(self) -> bool:
        """Whether what is only of passing interest is printed: progress, and what is done on the way."""
        return not self.quiet and (self.verbose or self.moving)

    @property
    def moving(self) -> bool:
        """Whether a person looks on at lines that may move."""
        return not self.logs_json and sys.stderr is not None and sys.stderr.isatty()

    def keep(self, warning: str) -> bool:
        """Keep a warning for the result; False where that is printed already, or is not JSON."""
        with self._guard:
            if not self.json or self._delivered:
                return False
            self._warnings.append(warning)
            return True

    def take(self) -> list[str]:
        """Return the warnings, each once, for the result or the error that is about to be printed."""
        with self._guard:
            kept = list(dict.fromkeys(self._warnings))
            self._warnings.clear()
            self._delivered = True
            return kept


class _Process:
    """The manner of the command that this process works on: layers below warn through logging, from any thread."""

    manner = Manner()


def manner() -> Manner:
    """Return how the command speaks that is being worked on."""
    return _Process.manner


def speak(words: Sequence[str]) -> None:
    """Begin a command.

    Args:
        words: The words after `lastgood`.
    """
    said = words[: list(words).index("--")] if "--" in words else words
    logs_json = log_format(words) == "json"
    _Process.manner = Manner("--quiet" in said, "--verbose" in said, "--json" in said, logs_json)
