"""A folder of files as a source of state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, field_validator, model_validator

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable
from blocks.host.folders import sync_folder
from blocks.host.identity import place_identity
from blocks.host.leftovers import aside_path
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, CollectionSpec
from blocks.sources.files.bucket_scratch import SCRATCH, ScratchObjects, scratch_objects
from blocks.sources.files.bucket_target import LONGEST_KEY, BucketTarget
from blocks.sources.files.bucket_view import BucketView
from blocks.sources.files.cover import Coverage, Judge, Rules, is_old, relative_to
from blocks.sources.files.globs import GitGlobs
from blocks.sources.files.leavings import remove_dead_staging
from blocks.sources.files.proving import provable_rows
from blocks.sources.files.readers import Readers
from blocks.sources.files.target import FilesTarget
from blocks.sources.files.tree import shown
from blocks.sources.files.view import FilesView, Options, Watch
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreScope
from blocks.storage.bucket_objects import ObjectPlace
from blocks.storage.bucket_urls import bucket_location, check_bucket, is_bucket, split_url
from blocks.storage.settings import StorageSettings

_SALVAGE_ATTEMPTS = 3
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(?:://|::)")


class FilesSource(StateSource):
    """A local folder: files, folders and symbolic links with their modes, owners and times; or the objects of a bucket.

    The one collection, `tree`, holds rows with the key (`path`, `offset`). The row at offset -1 is the entry itself;
    content follows in rows of 1 MiB at offsets 0, 1 MiB and so on. Pieces that are holes or all zeros have no row and
    come back as holes. Where a part begins in the middle of a file, at a piece that starts at offset n, it also holds a
    row of kind `span` at offset n - 1, with the file's size, times and inode: it shows from the part alone whether the
    file is what the base has, however the file grew or shrank since the tree was partitioned.

    Files are opened and read by a process of its own, so that reading a database that this process has open breaks none
    of its locks.

    Kept, too: further names of a file (hard links), extended attributes of users and `trusted.` ones, access lists and
    capabilities. What is not kept: FIFOs, sockets, devices and security labels. A tree is *not* seen at one point in
    time: each file is read whole and untorn, but one after another. Let the application pause where files must agree
    with each other. A program that writes through a shared memory mapping leaves no trace in a file's times until the
    system notices; pause it too.

    With a URL `s3://bucket/prefix` it is the objects below the prefix, with content type and metadata (`bucket_rows.py`
    says as which rows).

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
    _watch: Watch = PrivateAttr(default_factory=Watch)
    _left_out: tuple[Path, ...] = PrivateAttr(default=())
    _protected: tuple[Path, ...] = PrivateAttr(default=())
    _old_globs: bool = PrivateAttr(default=False)

    type: Literal["files"] = Field("files", description="Kind of source.")
    url: str = Field(
        description="The folder, as a path or a file:// URL; or objects of a bucket, as s3://bucket/prefix."
    )
    storage: StorageSettings = Field(
        default_factory=StorageSettings, description="How a bucket is reached; folders need none of it."
    )
    include: list[str] = Field(
        default_factory=list,
        description="Globs of what to keep, with all beneath it, as gitignore has them; empty keeps all.",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Globs of what to leave out, with all beneath it, as gitignore has them; no restore touches it.",
    )
    on_change: Literal["error", "skip"] = Field(
        "error",
        description="What to do about a file that changes each time it is read: fail, or leave it out with a warning.",
    )
    on_unreadable: Literal["fail", "skip"] = Field(
        "fail",
        description="What to do about what cannot be read: fail, or leave it as the base of the backup has it, with a "
        "warning.",
    )
    read_attempts: int = Field(3, ge=1, description="How often to read a file that changes while it is read.")
    one_file_system: bool = Field(
        False, description="Keep folders on other file systems (mount points) empty instead of entering them."
    )
    part_size_bytes: int = Field(
        PART_SIZE_BYTES,
        ge=1,
        description="Size of content that parts are partitioned for, in bytes; at least 1 MiB counts.",
    )

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str) -> str:
        if is_bucket(url):
            split_url(url)
        else:
            _local(url)
        return url

    @model_validator(mode="after")
    def _fits_its_settings(self) -> Self:
        if is_bucket(self.url):
            check_bucket(self.url, self.storage)
            if self.one_file_system:
                raise ConfigurationError(
                    "`one_file_system` means nothing to a bucket", hint="Take it out of the source."
                )
        elif any(getattr(self.storage, name) != one.default for name, one in StorageSettings.model_fields.items()):
            raise ConfigurationError("`storage` means nothing to a folder", hint="Take it out of the source.")
        return self

    @field_validator("include", "exclude")
    @classmethod
    def _name_something(cls, globs: list[str], info: ValidationInfo) -> list[str]:
        try:
            GitGlobs(globs)
        except ValueError as exc:
            raise ConfigurationError(
                f"the pattern {str(exc)!r} names nothing inside of a folder",
                hint="Write patterns as gitignore has them, relative to the `url`, such as `/cache/*` or `*.tmp`.",
            ) from exc
        if info.field_name == "include" and globs and all(glob.startswith("!") for glob in globs):
            raise ConfigurationError(
                f"`include` has only the exception {globs[0]!r}, so that nothing is included",
                hint="Name first what to keep, such as `*`, or use `exclude`.",
            )
        return globs

    @property
    def root(self) -> Path:
        """The folder as a path."""
        return _local(self.url)

    @property
    def beyond_privileges(self) -> frozenset[str]:
        """Only root can give files to other owners, without whom modes may come back with fewer rights."""
        return frozenset() if os.geteuid() == 0 else frozenset({"uid", "gid", "mode"})

    def anchored(self, folder: Path) -> Self:
        """Return a copy whose relative folder, or files of credentials, are resolved against `folder`."""
        if is_bucket(self.url):
            return self.model_copy(update={"storage": self.storage.anchored(folder)})
        return self._elsewhere(str(folder / self.root))

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold what lets lastgood in."""
        return super().secret_variables | self.storage.variables

    @property
    def rows_of_nothing(self) -> int:
        """One: the folder itself, which a bucket has, too."""
        return 1

    @property
    def local(self) -> bool:
        """True: `location` asks nobody."""
        return True

    def around(self, left_out: Sequence[Path], protected: Sequence[Path]) -> Self:
        """Return a copy that leaves alone what others own in the folder, and writes none of the protected files."""
        copy = self.model_copy()
        copy._left_out, copy._protected = tuple(left_out), tuple(protected)
        return copy

    def location(self, to: str | None = None) -> Location:
        """Say where the folder, or the one that `to` names, really is."""
        taken = [f"only {', '.join(self.include)}"] if self.include else []
        taken += [f"not {', '.join(self.exclude)}"] if self.exclude else []
        if is_bucket(to or self.url):
            return replace(bucket_location(to or self.url, self.storage), part="; ".join(taken))
        path = _local(to or self.url)
        return Location(shown=str(path), paths=(Path(os.path.realpath(path)),), tree=True, part="; ".join(taken))

    def identity(self) -> dict[str, JsonValue]:
        """Say which folder it is, by its path on this machine and its number in the file system; or which bucket."""
        if _is_objects(self.url):
            return {"bucket": [self.location().shown]}
        return place_identity(self.root)

    def covered(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray | None:
        """Return for each row whether the plan covers its path, or that of a folder that may lead to one it covers.

        Args:
            collection: The tree.
            rows: One row per record, with at least `path` (large_binary).
        """
        local = not _is_objects(self.url)
        left_out = relative_to(os.fsencode(os.path.realpath(self.root)), self._left_out) if local else []
        if not (self.include or self.exclude or left_out):
            return None
        judge = Judge(self._rules(), left_out)
        paths: list[bytes] = rows.column("path").to_pylist()
        folders = [kind == "dir" for kind in rows.column("kind").to_pylist()] if "kind" in rows.column_names else None
        found = (
            judge.covers(path, folder=None if folders is None else folders[i])
            or ((folders is None or folders[i]) and judge.may_lead(path))
            for i, path in enumerate(paths)
        )
        return pa.array(found, pa.bool_())  # also of no rows at all

    def reach(self) -> str:
        """List the folder itself, and nothing beneath it; or the objects of the bucket."""
        if _is_objects(self.url):
            return super().reach()
        try:
            with os.scandir(self.root) as entries:
                count = sum(1 for _ in entries)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        return f"folder {self.root}, {count:,} {'entry' if count == 1 else 'entries'}"

    def _unreadable(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"the folder {self.root} cannot be read: {error.strerror}",
            hint="Check the source's `url`, and that the folder's disk is mounted.",
        )

    @contextmanager
    def view(self, since: str | None = None) -> Iterator[FilesView]:
        """Walk the tree and offer its parts.

        Raises:
            SourceUnavailable: The folder is missing, or something in it cannot be read.
        """
        with self._open(salvage=False) as view:
            yield view

    @contextmanager
    def salvage(self) -> Iterator[FilesView]:
        """Walk the tree and offer its parts; what cannot be read is listed as unread.

        Raises:
            SourceUnavailable: The folder is missing or cannot be read itself.
        """
        with self._open(salvage=True) as view:
            yield view

    @contextmanager
    def _open(self, *, salvage: bool) -> Iterator[FilesView]:
        if _is_objects(self.url):
            with closing(self._objects(self.url)) as place:
                yield BucketView(self._options(place.place.encode(), salvage=salvage), place)
            return
        root = os.fsencode(self.root)
        try:
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise self._unreadable(exc) from exc
        try:
            remove_dead_staging(os.path.realpath(root))
            with Readers(fd, self._watch) as readers:
                yield FilesView(self._options(root, salvage=salvage), fd, readers)
        finally:
            os.close(fd)

    def _options(self, root: bytes, *, salvage: bool) -> Options:
        return Options(
            root=root,
            cover=self._cover(),
            on_change=self.on_change,
            on_unreadable=self.on_unreadable,
            read_attempts=max(self.read_attempts, _SALVAGE_ATTEMPTS) if salvage else self.read_attempts,
            part_size_bytes=self.part_size_bytes,
            salvage=salvage,
        )

    def _rules(self) -> Rules:
        return Rules(tuple(self.include), tuple(self.exclude), self._old_globs)

    def _cover(self) -> Coverage:
        return Coverage(self._rules(), self.one_file_system, self._left_out, self._protected)

    def as_backed_up(self, definition: Mapping[str, JsonValue]) -> FilesSource:
        """Return a copy that covers what a backup covered."""
        said = {name: definition[name] for name in ("include", "exclude") if isinstance(definition.get(name), list)}
        old = bool(said) and is_old(definition)
        copy = self.model_copy(update={"include": [], "exclude": [], **said} if old else said)
        copy._old_globs = old
        return copy

    def unnarrowed(self) -> FilesSource:
        """Return a copy that covers everything at its place."""
        return self.model_copy(update={"include": [], "exclude": []})

    def target(self, scope: RestoreScope, to: str | None = None) -> FilesTarget | BucketTarget:
        """Prepare a restore into the folder or bucket itself, or into the one that `to` names.

        Raises:
            ConfigurationError: `to` is neither a local folder nor a bucket.
        """
        url = self.url if to is None else to
        if _is_objects(url):
            longest = LONGEST_KEY - len(split_url(url)[1].encode()) if is_bucket(url) else LONGEST_KEY
            return BucketTarget(self._objects(url), self._cover(), scope, longest)
        return FilesTarget(os.fsencode(_local(url)), self._cover(), scope)

    def _objects(self, url: str) -> ObjectPlace:
        if not is_bucket(url):
            return ScratchObjects(url)
        from blocks.storage.buckets import Bucket  # it takes long, and folders need none of it

        return Bucket(url, self.storage)

    def by_meaning(self, collection: CollectionSpec, rows: pa.Table) -> pa.Table:
        """Return the rows as a proof can find them again in a scratch place.

        That may not take all attributes, which it then tells. Which names are of one file is left out: a narrowed
        backup does not hold all of them.

        Args:
            collection: The tree.
            rows: Rows with columns of `SCHEMA` (rows.py).
        """
        return rows if _is_objects(self.url) else provable_rows(rows)

    def opaque(self, collection: CollectionSpec, rows: pa.Table) -> tuple[pa.BooleanArray, pa.Table]:
        """Say that no row holds bytes that may differ."""
        return pa.array([False] * rows.num_rows, pa.bool_()), rows

    def put_away(self) -> str | None:
        """Rename the folder; a bucket cannot be.

        Raises:
            RestoreRefused: It cannot be renamed, or holds what belongs to others.
        """
        if _is_objects(self.url):
            return None
        root = os.path.realpath(os.fsencode(self.root))
        cover = self._cover()
        if inside := relative_to(root, [*cover.left_out, *cover.protected]):
            raise RestoreRefused(f"{shown(min(inside))} in it belongs to others")
        aside = aside_path(Path(os.fsdecode(root)))
        try:
            os.rename(root, aside)
            sync_folder(aside.parent)
        except OSError as exc:
            raise RestoreRefused(f"it cannot be renamed: {exc.strerror or exc}") from exc
        return str(aside)

    def at(self, place: str) -> Self:
        """Return this source as it would be in another folder."""
        return self._elsewhere(place)

    def scratch(self, folder: Path) -> str:
        """Name a folder that a verification can restore to; for a bucket one that holds any key."""
        return scratch_objects(folder) if _is_objects(self.url) else self.inside(folder)

    def inside(self, folder: Path) -> str:
        """Name a folder inside a folder."""
        return str(folder / "tree")

    def _elsewhere(self, url: str) -> Self:
        if not _is_objects(url):
            _local(url)
        return self.model_copy(update={"url": url})


def _is_objects(url: str) -> bool:
    return is_bucket(url) or url.startswith(SCRATCH)


def _local(url: str) -> Path:
    scheme = _SCHEME.match(url)
    if scheme is None:
        if not url.strip():
            raise ConfigurationError("the url of a files source is empty", hint="Give the path of a folder.")
        return Path(url).expanduser()
    parts = urlsplit(url)
    if scheme[1].lower() != "file":
        raise ConfigurationError(
            f"files at {scheme[1]}:// cannot be backed up: only local folders and buckets (s3://) are supported",
            hint="Give a path or a file:// URL, for example of a mounted disk, or s3://bucket/prefix.",
        )
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ConfigurationError(f"the URL {url!r} does not name a local folder", hint="Write file:///path.")
    return Path(unquote(parts.path))
