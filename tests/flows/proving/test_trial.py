"""A restore that is tried: the type of what ends it says whether the place is at fault or the backup."""

from __future__ import annotations

import pytest

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    CouldNotBeTried,
    LastgoodError,
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


def test_a_full_disk_is_of_the_place_and_a_wrong_plan_is_raised() -> None:
    for number, kind in ((28, CouldNotBeTried), (122, CouldNotBeTried)):
        trial = Trial()
        with trial.step():
            raise OSError(number, "full")
        assert isinstance(trial.error, kind)
    with pytest.raises(ConfigurationError), Trial().step():
        raise ConfigurationError("wrong")
    with pytest.raises(OSError, match="worn"), Trial().step():
        raise OSError(5, "worn")
