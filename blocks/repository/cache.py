"""Copies of sealed objects of a repository in a network, in `$XDG_CACHE_HOME/lastgood/<repository id>/<plan>/`.

A file is `<backup id>.<kind>.<SHA-256 of the sealed bytes>`; what it holds is compared with its name whenever it is
read, and opened with the keys like what the storage sends. It shows no more than the repository does, and nothing in it
is believed:

- Where a manifest that was read from the storage names another one, or an index, by SHA-256, a copy of these bytes is
  as good as a request for them; whether the storage still has them is asked of the storage.
- By a backup's id alone copies answer only to who shows backups. So does `summaries.1`, which stands for all manifests.

Whatever goes wrong here costs a request, and is nobody's error.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from blocks.host.state_folder import cache_folder
from blocks.repository import names
from blocks.repository.summaries import SUMMARIES

logger = logging.getLogger(__name__)

MOST_BYTES = 256 * 1024 * 1024
"""All copies of a plan together; the oldest go first."""
MOST_BYTES_EACH = 1024 * 1024
"""What is larger is not kept: then a request is not what costs."""
MOST_SECONDS = 90 * 86_400
"""No copy is kept for longer."""

_NAME = re.compile(r"([A-Z]{3}_[0-9]{8}_[0-9]{6}_[0-9a-f]{4})\.(manifest|index)\.([0-9a-f]{64})")


class Kind(StrEnum):
    """What a copy is of."""

    MANIFEST = "manifest"
    INDEX = "index"


class SealedCache:
    """Copies of the sealed manifests and indexes of one repository. Thread-safe; processes may share it.

    Args:
        repository_id: Id of the repository.
    """

    def __init__(self, repository_id: str) -> None:
        self._repository_id = repository_id
        self._folders = dict[str, str]()

    def get(self, plan: str, backup_id: str, kind: Kind, digest: str) -> bytes | None:
        """Return the bytes of a digest; None where there is no copy of them."""
        try:
            path = self._path(plan, backup_id, kind, digest)
            with open(path, "rb", opener=_opener) as file:
                sealed = file.read(MOST_BYTES_EACH + 1)
            if sha256(sealed).hexdigest() == digest:
                return sealed
            os.unlink(path)  # damaged, or not written to its end
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home
            logger.debug("no copy: %s", exc)
        return None

    def put(self, plan: str, backup_id: str, kind: Kind, sealed: bytes) -> None:
        """Keep a copy, if that can be done."""
        if len(sealed) > MOST_BYTES_EACH:
            return
        with suppress(OSError, RuntimeError):
            path = self._path(plan, backup_id, kind, sha256(sealed).hexdigest())
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            try:
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:
                self._folder(plan).mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(path, flags, 0o600)
            # not made under another name first: who reads half of it compares the digest
            with open(descriptor, "wb") as file:
                file.write(sealed)

    def summaries(self, plan: str) -> bytes | None:
        """Return the sealed summaries of a plan's backups; None where there are none."""
        try:
            with open(self._folder(plan) / SUMMARIES, "rb", opener=_opener) as file:
                return file.read(MOST_BYTES)
        except (OSError, RuntimeError) as exc:
            logger.debug("no summaries: %s", exc)
            return None

    def put_summaries(self, plan: str, sealed: bytes) -> None:
        """Keep the sealed summaries of a plan's backups in the place of the ones before, if that can be done."""
        with suppress(OSError, RuntimeError):
            folder = self._folder(plan)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=folder, prefix=SUMMARIES, delete=False) as file:
                try:
                    file.write(sealed)
                    file.flush()
                    os.replace(file.name, folder / SUMMARIES)
                except BaseException:
                    # what interrupts is raised again also where it came after the file was renamed
                    Path(file.name).unlink(missing_ok=True)
                    raise

    def manifests(self, plan: str) -> dict[str, str]:
        """Return the digests of the manifests that there are copies of, by the id of the backup."""
        try:
            found = (_NAME.fullmatch(name) for name in os.listdir(self._folder(plan)))
        except (OSError, RuntimeError):
            return {}
        return {one[1]: one[3] for one in found if one is not None and one[2] == Kind.MANIFEST}

    def trim(self, plan: str, kept: Collection[str] | None = None) -> None:
        """Remove copies of backups that are not there any more, and the oldest where there are too many.

        Args:
            plan: Name of the plan.
            kept: Ids of the plan's backups, where they are known.
        """
        room, oldest = MOST_BYTES, time.time() - MOST_SECONDS
        with suppress(OSError, RuntimeError):
            with os.scandir(self._folder(plan)) as entries:
                found = [(entry.stat(follow_symlinks=False), entry) for entry in entries]
            for seen, entry in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
                room -= seen.st_size
                gone = kept is not None and entry.name.partition(".")[0] not in kept and entry.name != SUMMARIES
                if gone or room < 0 or seen.st_mtime < oldest:
                    with suppress(FileNotFoundError):  # another process removed it
                        os.unlink(entry.path)

    def _folder(self, plan: str) -> Path:
        return cache_folder() / self._repository_id / names.checked_plan(plan)

    def _path(self, plan: str, backup_id: str, kind: Kind, digest: str) -> str:
        if plan not in self._folders:
            self._folders[plan] = str(self._folder(plan))
        return f"{self._folders[plan]}/{backup_id}.{kind}.{digest}"


def _opener(path: str, flags: int) -> int:
    # a FIFO in its place is not waited for
    return os.open(path, flags | os.O_NONBLOCK)
