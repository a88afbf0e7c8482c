"""Every error that lastgood raises on purpose, each with its exit code and a hint of what to do next.

LastgoodError                     1
├── ConfigurationError            2   the plan, a parameter or a setting is wrong
│   └── ProgramMissing            2   a program that it needs is not on this machine
├── SourceUnavailable             3   live state cannot be read or reached
│   ├── SourceChanged             3   it changed under the reader until the attempts ran out
│   ├── SourceGone                3   it held records in the last backup, and now holds none at all
│   ├── ServerUnusable            3   its server cannot be reached, went away, or is none that can be used
│   ├── SourceFull                3   no room is left where it is
│   └── HookFailed                3   a hook before the work failed or took too long; the work was not begun
├── UnsupportedState              3   live state holds a value that cannot be kept exactly
├── CouldNotBeTried               3   a proof could not be tried, which says nothing of what was to be proved
├── TemporaryFolderUnusable       3   the folder for temporary data (TMPDIR) cannot be written
│   └── TemporaryFolderFull       3   no room is left there
├── RepositoryUnavailable         4   the place where backups are kept cannot be reached
│   ├── RepositoryFull            4   no room is left there
│   ├── PlaceMissing              4   its folder is not there: a disk that is not mounted, for one
│   ├── StorageRefused            4   the storage refused: credentials, or what they may do
│   ├── StorageUnreachable        4   the storage did not answer as it should, in all attempts
│   └── ObjectUnreadable          4   one object cannot be read, which says nothing about what was stored
├── ObjectMissing                 4   a tier has no object of that name
├── AlreadyExists                 4   exclusive creation found another object of that name
├── RepositoryLocked              5   another run holds the plan's lease
├── BackupNotFound                6   no backup matches the id, time or word
├── WrongKey                      7   no credential opens the repository, or the role is not enough
├── CorruptionDetected            8   stored bytes are not what was stored
├── BaseUnusable                  8   a backup cannot depend on its base (it becomes a full)
├── QualityFailed                 9   restored state breaks an expectation of its quality suite
├── RestoreRefused               10   the restore would do harm, nothing was written
│   └── PlaceUnfit               10   the place lacks room, a right, a role or a version, whatever is restored there
├── NotConfirmed                 10   it takes something away, and nobody said so in words; nothing was written
├── Partial                      11   the work was done in part; what is missing is named
└── NotRestorable                12   stored bytes are right, and a restore of them fails, or brings back something else
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


class ProgramMissing(ConfigurationError):
    """A program that the plan needs is not on this machine, or is too old."""


class SourceUnavailable(LastgoodError):
    """Live state cannot be read or reached."""

    exit_code = 3


class SourceChanged(SourceUnavailable):
    """Live state changed under the reader until the attempts ran out."""


class SourceGone(SourceUnavailable):
    """A source held records in the last backup, and now holds none at all; it may be what is left of it."""


class ServerUnusable(SourceUnavailable):
    """The server of live state cannot be reached, went away, or is too old."""


class SourceFull(SourceUnavailable):
    """No room is left where live state is."""


class HookFailed(SourceUnavailable):
    """A hook failed or took too long. One that runs before the work stops it: nothing was read or written."""


class UnsupportedState(LastgoodError):
    """Live state holds a value that cannot be kept exactly; the record is named."""

    exit_code = 3


class CouldNotBeTried(LastgoodError):
    """A proof could not be tried: no program of the server, no room, no right to create a database.

    It says nothing of the backup. A verification goes on with its other proofs, records this one as unproven, and ends
    with this error where it found nothing worse.
    """

    exit_code = 3


class TemporaryFolderUnusable(LastgoodError):
    """The folder for temporary data, which TMPDIR names, cannot be written; the source and the repository can."""

    exit_code = 3


class TemporaryFolderFull(TemporaryFolderUnusable):
    """No room is left in the folder for temporary data."""


class RepositoryUnavailable(LastgoodError):
    """The place where backups are kept cannot be reached, read or written."""

    exit_code = 4


class RepositoryFull(RepositoryUnavailable):
    """No room is left where backups are kept; what was there before is as it was."""


class PlaceMissing(RepositoryUnavailable):
    """The folder of a repository is not there."""


class StorageRefused(RepositoryUnavailable):
    """The storage refused: the credentials are wrong or have expired, or may not do this; it is not tried again."""


class StorageUnreachable(RepositoryUnavailable):
    """The storage could not be reached, or failed, in all attempts of the tier; nobody tries again in this run."""


class ObjectUnreadable(RepositoryUnavailable):
    """One object cannot be read (an I/O error, a permission, a FIFO in its place): never recorded as corrupted."""


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


class BaseUnusable(LastgoodError):
    """The base of a differential or incremental cannot be read, or one of its parts needs repartition."""

    exit_code = 8


class QualityFailed(LastgoodError):
    """Restored state breaks an expectation of its quality suite."""

    exit_code = 9


class RestoreRefused(LastgoodError):
    """The restore would do harm; nothing was written."""

    exit_code = 10


class PlaceUnfit(RestoreRefused):
    """The place lacks what a restore needs (room, a right, a role, a version): it says nothing of what is restored."""


class NotConfirmed(LastgoodError):
    """What was asked for takes something away, and nobody said in words that it may; nothing was written."""

    exit_code = 10


class Partial(LastgoodError):
    """The work was done in part; what is missing is named."""

    exit_code = 11


class NotRestorable(LastgoodError):
    """The stored bytes are what was stored, and a restore of them fails, or brings back something else."""

    exit_code = 12
