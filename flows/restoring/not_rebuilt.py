"""What a restore left out because it could not be rebuilt: the script for it, and the error that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from blocks.errors import Partial
from blocks.host.state_folder import state_folder
from blocks.records import BackupMetadata
from blocks.sources.target import NotRebuilt, Script
from flows.pipeline.results import RestoreResult

MOST_NAMED = 20
"""How many objects an error names; the result has all of them."""


class RestoredInPart(Partial):
    """A restore brought back all but some objects that could not be rebuilt.

    Args:
        result: What the restore did, with the objects in `not_rebuilt`.
    """

    def __init__(self, result: RestoreResult) -> None:
        left = result.not_rebuilt
        named = [f"{each.source}: {each.name}: {each.reason}" for each in left[:MOST_NAMED]]
        if len(left) > MOST_NAMED:
            named.append(f"and {len(left) - MOST_NAMED:,} more")
        what = "1 object" if len(left) == 1 else f"{len(left):,} objects"
        scripts = ", ".join(result.scripts.values())
        super().__init__(
            f"all of backup {result.backup_id} that was asked for is restored, except for {what} that could not be "
            f"rebuilt:\n  " + "\n  ".join(named),
            hint=" ".join(
                filter(
                    None,
                    (
                        f"The statements for them are in {scripts}; run them when their causes are mended."
                        if scripts
                        else "",
                        f"`{result.undo}` takes the restore back." if result.undo else "",
                    ),
                )
            ),
        )
        self.result = result

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the result when the error travels between processes."""
        return RestoredInPart, (self.result,)


def check_whole(result: RestoreResult) -> RestoreResult:
    """Return what a restore did where it brought back everything.

    Raises:
        RestoredInPart: It left something out.
    """
    if error := left_out(result):
        raise error
    return result


def left_out(result: RestoreResult) -> RestoredInPart | None:
    """Return the error that names what a restore left out; None where it brought back everything."""
    return RestoredInPart(result) if result.not_rebuilt else None


def write_script(backup: BackupMetadata, source: str, objects: Sequence[NotRebuilt]) -> Path | None:
    """Write the statements of objects to a file that only its owner may read, since definitions may hold secrets.

    Returns:
        The file, `$XDG_STATE_HOME/lastgood/not-rebuilt/<plan>-<source>-<backup id>.sql` (or `.redis-cli`); None without
        any statement.

    Raises:
        OSError: It cannot be written.
        RuntimeError: The user has no home.
    """
    stated = [each for each in objects if each.statement]
    if not stated:
        return None
    script = stated[0].script  # those of a source are for one program
    path = state_folder() / "not-rebuilt" / f"{backup.plan}-{source}-{backup.backup_id}.{script.value}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        about = f"What of source {source} a restore of backup {backup.backup_id} did not rebuild."
        # redis-cli knows no comments
        file.writelines(_sql(about, stated) if script is Script.SQL else (f"{each.statement}\n" for each in stated))
    return path


def _sql(about: str, objects: Sequence[NotRebuilt]) -> Iterator[str]:
    yield f"-- {about}\n"
    for each in objects:
        yield f"\n{_comment(f'{each.name}: {each.reason}')}\n{each.statement.rstrip().rstrip(';')};\n"


def _comment(text: str) -> str:
    return "\n".join(f"-- {line}" for line in text.splitlines())
