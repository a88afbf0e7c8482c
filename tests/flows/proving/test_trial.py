"""A restore that is tried: the type of what ends it says whether the place is at fault or the backup."""

from __future__ import annotations

import errno

import pytest

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    CouldNotBeTried,
    LastgoodError,
    NotRestorable,
    PlaceUnfit,
    ProgramMissing,
    RestoreRefused,
    ServerUnusable,
    SourceFull,
    SourceUnavailable,
    TemporaryFolderFull,
)
from flows.proving.trial import Trial

UNTRIED = (
    PlaceUnfit("p"),
    ProgramMissing("p"),
    ServerUnusable("s"),
    SourceFull("s"),
    TemporaryFolderFull("t"),
    CouldNotBeTried("c"),
)
FAILED = (RestoreRefused("r"), SourceUnavailable("s"), CorruptionDetected("c"))


@pytest.mark.parametrize(("error", "untried"), [*((e, True) for e in UNTRIED), *((e, False) for e in FAILED)])
def test_the_type_of_an_error_says_whether_the_place_or_the_backup_is_at_fault(
    error: LastgoodError, untried: bool
) -> None:
    trial = Trial()
    with trial.step():
        raise error
    assert trial.error is not None
    assert (isinstance(trial.error, CouldNotBeTried), trial.error.message, trial.goes_on) == (
        untried,
        error.message,
        False,
    )
    with trial.step():
        raise RestoreRefused("later")
    assert trial.error.message == error.message


def test_a_failing_system_is_of_the_place_all_else_is_a_failure_and_a_wrong_plan_is_raised() -> None:
    for error, kind in (
        (OSError(errno.ENOSPC, "full"), CouldNotBeTried),
        (OSError(errno.EIO, "worn"), CouldNotBeTried),
        (MemoryError(), CouldNotBeTried),
        (ValueError("odd"), NotRestorable),
    ):
        trial = Trial()
        with trial.step():
            raise error
        assert type(trial.error) is kind
        assert trial.error.message.startswith(type(error).__name__)
    with pytest.raises(ConfigurationError), Trial().step():
        raise ConfigurationError("wrong")
