"""A folder of files as a source of state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, PrivateAttr, field_validator

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.base import PART_SIZE_BYTES, RestoreScope, StateSource
from blocks.sources.files.target import FilesTarget
from blocks.sources.files.tree import Rules
from blocks.sources.files.view import FilesView, Options, Watch

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(?:://|::)")


class FilesSource(StateSource):
    """A local folder: files, folders and symbolic links with their modes, owners and times.

    The one collection, `tree`, holds rows with the key (`path`, `offset`). The row at offset -1 is the entry itself;
    content follows in rows of 1 MiB at offsets 0, 1 MiB and so on. Pieces that are holes or all zeros have no row and
    come back as holes. Where a part begins in the middle of a file, at a piece that starts at offset n, it also holds a
    row of kind `span` at offset n - 1, with the file's size, times and inode: it tells from the part alone whether the
    file is what the base has, however the file grew or shrank since the boundaries were drawn.

    What is not kept: hard links come back as separate files; FIFOs, sockets and devices, extended attributes and access
    lists are left out. A tree is *not* seen at one point in time: each file is read whole and untorn, but one after
    another. Let the application pause where files must agree with each other. A program that writes through
    a shared memory mapping leaves no trace in a file's times until the system notices; pause it too.

    Example:
        Keep a folder of models, but not what is being downloaded into it:

        ```python
        from blocks.sources.files import FilesSource

        FilesSource(url="./state/models", exclude=["*.part"]).save("models")
        models = FilesSource.load("models")
        ```
    """

    _block_type_name = "Files Source"
    _block_type_slug = "files-source"
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]
    _watch: Watch = PrivateAttr(default_factory=Watch)

    type: Literal["files"] = Field("files", description="Kind of source.")
    url: str = Field(description="The folder, as a path or a file:// URL.")
    include: list[str] = Field(
        default_factory=list,
        description="Globs of relative paths to keep, with all beneath them; `*` also matches `/`. Empty keeps all.",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Globs of relative paths to leave out, with all beneath them; a restore never touches them.",
    )
    on_change: Literal["error", "skip"] = Field(
        "error",
        description="What to do about a file that changes each time it is read: fail, or leave it out with a warning.",
    )
    read_attempts: int = Field(3, ge=1, description="How often to read a file that changes while it is read.")
    one_file_system: bool = Field(
        False, description="Keep folders on other file systems (mount points) empty instead of entering them."
    )
    part_size_bytes: int = Field(
        PART_SIZE_BYTES, ge=1, description="Content for which a part is drawn, in bytes; 1 MiB at least counts."
    )

    @field_validator("url")
    @classmethod
    def _is_local(cls, url: str) -> str:
        _local(url)
        return url

    @field_validator("include", "exclude")
    @classmethod
    def _are_relative(cls, globs: list[str]) -> list[str]:
        for glob in globs:
            if not glob.strip("./") or glob.startswith("/") or ".." in glob.split("/"):
                raise ConfigurationError(
                    f"the pattern {glob!r} names nothing inside of a folder",
                    hint="Write paths relative to the source's url, such as `cache/*` or `*.tmp`.",
                )
        return globs

    @property
    def root(self) -> Path:
        """The folder as a path."""
        return _local(self.url)

    @property
    def beyond_privileges(self) -> frozenset[str]:
        """Only root can give files to other owners."""
        return frozenset() if os.geteuid() == 0 else frozenset({"uid", "gid"})

    def anchored(self, folder: Path) -> Self:
        """Return a copy whose relative folder is resolved against `folder`."""
        return self._elsewhere(str(folder / self.root))

    @contextmanager
    def view(self, since: str | None = None) -> Iterator[FilesView]:
        """Walk the tree and offer its parts.

        Raises:
            SourceUnavailable: The folder is missing, or something in it cannot be read.
        """
        root = os.fsencode(self.root)
        try:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise SourceUnavailable(
                f"the folder {self.root} cannot be read: {exc.strerror}",
                hint="Check the source's `url`, and that the folder's disk is mounted.",
            ) from exc
        try:
            yield FilesView(self._options(root), fd, self._watch)
        finally:
            os.close(fd)

    def _options(self, root: bytes) -> Options:
        return Options(
            root=root,
            rules=self._rules(),
            on_change=self.on_change,
            read_attempts=self.read_attempts,
            one_file_system=self.one_file_system,
            part_size_bytes=self.part_size_bytes,
        )

    def _rules(self) -> Rules:
        return Rules(tuple(self.include), tuple(self.exclude))

    def target(self, scope: RestoreScope, to: str | None = None) -> FilesTarget:
        """Prepare a restore into the folder itself, or into the one that `to` names.

        Raises:
            ConfigurationError: `to` is not a local folder.
        """
        root = self.root if to is None else _local(to)
        return FilesTarget(os.fsencode(root), self._rules(), scope, one_file_system=self.one_file_system)

    def at(self, place: str) -> Self:
        """Return this source as it would be in another folder."""
        return self._elsewhere(place)

    def scratch(self, folder: Path) -> str:
        """Name a folder that a verification can restore to."""
        return str(folder / "tree")

    def _elsewhere(self, url: str) -> Self:
        _local(url)
        return self.model_copy(update={"url": url})


def _local(url: str) -> Path:
    scheme = _SCHEME.match(url)
    if scheme is None:
        if not url.strip():
            raise ConfigurationError("the url of a files source is empty", hint="Give the path of a folder.")
        return Path(url).expanduser()
    parts = urlsplit(url)
    if scheme[1].lower() != "file":
        raise ConfigurationError(
            f"files at {scheme[1]}:// cannot be backed up: only local folders are supported in this version",
            hint="Give a path or a file:// URL, for example of a mounted disk.",
        )
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigurationError(f"the URL {url!r} does not name a local folder", hint="Write file:///path.")
    return Path(unquote(parts.path))
