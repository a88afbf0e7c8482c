"""What a caller wants restored, where to, and how: the record that a restore is asked for with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.restoring.samples import NO_SAMPLES, Sampling


@dataclass(frozen=True)
class TakenBack:
    """What is known of a restore that is taken back.

    Attributes:
        created: Full names of the collections that it has created.
        keys: Globs over the keys that it was narrowed to; in what it created, rows of other keys are others'.
        definitions: By source its definition in the backup that was restored; none where that is gone.
    """

    created: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    definitions: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)


@dataclass(frozen=True)
class RestoreRequest:
    """What is to be restored, where to, and how.

    Attributes:
        backup: Id of the backup, `latest`, or `latest verified`.
        at: Restore the newest backup made at or before this time instead; without a zone it is local time.
        selection: Which collections and keys.
        to: Another place than the live one, as a person gives it; a folder where several sources are restored.
        to_password_env: Environment variable that holds the password of that place, or `none`.
        mode: MERGE or EXACT; PREVIEW asks for a preview of an EXACT one.
        preview: Whether it is only to be found out what would be done; then nothing is written at all.
        overwrite: Whether what is at another place may be replaced.
        without_emergency_backup: Whether live state may be overwritten without being backed up first.
        scratch: The place of each source by name, where they are empty ones that lastgood chose itself, for all of the
            backup; None elsewhere.
        keep_going: Whether an object that cannot be rebuilt is left out, and named, instead of failing the restore.
        no_owner: Whether owners of the backup are left out, so that they need not exist.
        no_privileges: Whether privileges are left out.
        adopt: Whether a live place may be written that is another one than the backup's, and not empty.
        takes_back: The restore that is taken back, where the backup is the one that was made before it.
        sampling: Which of the records that it changes a preview shows.
    """

    backup: str = "latest"
    at: datetime | None = None
    selection: Selection = field(default_factory=Selection)
    to: str | None = None
    to_password_env: str | None = None
    mode: RestoreMode = RestoreMode.EXACT
    preview: bool = False
    overwrite: bool = False
    without_emergency_backup: bool = False
    adopt: bool = False
    scratch: Mapping[str, str] | None = None
    takes_back: TakenBack | None = None
    keep_going: bool = False
    no_owner: bool = False
    no_privileges: bool = False
    sampling: Sampling = NO_SAMPLES

    def __post_init__(self) -> None:
        """Let `mode` say how the restore would be made, also where it is previewed."""
        if self.mode is RestoreMode.PREVIEW:
            object.__setattr__(self, "mode", RestoreMode.EXACT)
            object.__setattr__(self, "preview", True)
