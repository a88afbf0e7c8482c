"""Every error that lastgood raises on purpose, each with its exit code and a hint of what to do next.

LastgoodError                     1
├── ConfigurationError            2   the plan, a parameter or a setting is wrong
├── SourceUnavailable             3   live state cannot be read or reached
│   ├── SourceChanged             3   it changed under the reader until the attempts ran out
│   └── UnsupportedState          3   it holds a value that cannot be kept exactly
├── RepositoryUnavailable         4   the place where backups are kept cannot be reached
├── ObjectMissing                 4   a tier has no object of that name
├── AlreadyExists                 4   exclusive creation found another object of that name
├── RepositoryLocked              5   another run holds the plan's lease
├── BackupNotFound                6   no backup matches the id, time or word
├── WrongKey                      7   no credential opens the repository, or the role is not enough
├── CorruptionDetected            8   stored bytes are not what was stored
│   └── BaseUnusable              8   the base of an incremental cannot be read (it becomes a full)
├── QualityFailed                 9   restored state breaks an expectation of its quality suite
├── RestoreRefused               10   the restore would do harm, nothing was written
└── Partial                      11   the work was done in part; what is missing is named
"""

from __future__ import annotations


class LastgoodError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: What happened, naming the plan, collection, part or object it happened to.
        hint: What a person can do next, as a sentence.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the hint when the error travels between processes."""
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[LastgoodError], message: str, hint: str) -> LastgoodError:
    return kind(message, hint=hint)


class ConfigurationError(LastgoodError):
    """The plan, a parameter or a setting is wrong; nothing was read or written."""

    exit_code = 2


class SourceUnavailable(LastgoodError):
    """Live state cannot be read or reached."""

    exit_code = 3


class SourceChanged(SourceUnavailable):
    """Live state changed under the reader until the attempts ran out."""


class UnsupportedState(SourceUnavailable):
    """Live state holds a value that cannot be kept exactly; the record is named."""


class RepositoryUnavailable(LastgoodError):
    """The place where backups are kept cannot be reached, read or written."""

    exit_code = 4


class ObjectMissing(LastgoodError):
    """A tier has no object of that name; the repository says what that means."""

    exit_code = 4


class AlreadyExists(LastgoodError):
    """An exclusive creation found another object of that name; nothing was written."""

    exit_code = 4


class RepositoryLocked(LastgoodError):
    """Another run holds the plan's lease, or took it over."""

    exit_code = 5


class BackupNotFound(LastgoodError):
    """No committed backup matches the id, the time or the word."""

    exit_code = 6


class WrongKey(LastgoodError):
    """No credential opens the repository, or the credential's role is not enough."""

    exit_code = 7


class CorruptionDetected(LastgoodError):
    """Stored bytes are missing or are not what was stored; the object is named."""

    exit_code = 8


class BaseUnusable(CorruptionDetected):
    """The base of a differential or incremental cannot be read, or a part has outgrown the bounds it drew."""


class QualityFailed(LastgoodError):
    """Restored state breaks an expectation of its quality suite."""

    exit_code = 9


class RestoreRefused(LastgoodError):
    """The restore would do harm; nothing was written."""

    exit_code = 10


class Partial(LastgoodError):
    """The work was done in part; what is missing is named."""

    exit_code = 11
