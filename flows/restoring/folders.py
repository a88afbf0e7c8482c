"""The folder that several sources are restored into, each below its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.host.passwords import without_password
from blocks.storage.fsync import local_path


def folder_of(to: str) -> Path:
    """Return the folder that several sources are restored into.

    Raises:
        ConfigurationError: It is the address of a server.
    """
    scheme, separator, _ = to.partition("://")
    if separator and scheme.isalnum() and scheme.lower() != "file":
        raise ConfigurationError(
            f"several sources would be restored to {without_password(to)}, which is no folder",
            hint="Choose one source with --collection, or give a folder.",
        )
    return local_path(to).absolute()


@contextmanager
def folders_for(to: str | None, sources: Mapping[str, object]) -> Iterator[None]:
    """Make the folder that each of several sources has for itself; none is left where the restore is refused."""
    made: list[Path] = []
    try:
        if to is not None:
            for folder in (folder_of(to) / name for name in sources):
                made += _make_folder(folder)
        yield
    except BaseException:
        for folder in sorted(made, reverse=True):
            with suppress(OSError):  # the error that led here is the one to be seen
                folder.rmdir()
        raise


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and what is missing above it; return what was made.

    Raises:
        RestoreRefused: It cannot be made.
    """
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise RestoreRefused(
            f"{folder}, where the restore would write, cannot be made: {exc.strerror}",
            hint="Several sources are restored into a folder: name one, or choose a source with --collection.",
        ) from exc
    return missing
