"""Objects in a local folder, for a verification that restores a bucket: any key, any attributes, nothing remote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from blocks.storage.bucket_objects import Asked, Fetched, Listed, Lost, ObjectPlace, Stamp, Upload

SCRATCH = "lastgood-objects://"
"""How the name of such a place begins."""


def scratch_objects(folder: Path) -> str:
    """Name a place inside a folder."""
    return f"{SCRATCH}{folder}/objects"


class ScratchObjects(ObjectPlace):
    """Objects in a folder: each a file named for its key, beside one that says its key and attributes.

    Args:
        place: As `scratch_objects` names it.
    """

    def __init__(self, place: str) -> None:
        self.place = place.removeprefix(SCRATCH)
        self._folder = Path(self.place)

    def list(self) -> Listed:
        """List all objects."""
        said = [json.loads(path.read_text("utf-8")) for path in self._folder.glob("*.json")]
        return Listed({one["key"]: self._stamp(self._content(one["key"])) for one in said}, 0)

    def fetch(self, asked: Sequence[Asked]) -> Sequence[Fetched | Lost]:
        """Read objects."""
        return [self._fetch(one) for one in asked]

    def look(self, keys: Sequence[str]) -> Sequence[Fetched | Lost]:
        """Look at objects."""
        return [self._fetch(Asked(key, 0, 0)) for key in keys]

    def _fetch(self, asked: Asked) -> Fetched | Lost:
        path = self._content(asked.key)
        try:
            with path.open("rb") as file:
                file.seek(asked.start)
                data = file.read() if asked.stop is None else file.read(max(asked.stop - asked.start, 0))
            attributes = json.loads(path.with_suffix(".json").read_text("utf-8"))["attributes"]
        except FileNotFoundError:
            return Lost(None)
        return Fetched(self._stamp(path), attributes, data, 0)

    def put(self, uploads: Sequence[Upload]) -> Sequence[tuple[str, str]]:
        """Copy files."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        failed = []
        for upload in uploads:
            path = self._content(upload.key)
            said = json.dumps({"key": upload.key, "attributes": dict(upload.attributes)})
            try:
                shutil.copyfile(os.fsdecode(upload.path), path)
                path.with_suffix(".json").write_text(said, "utf-8")
            except OSError as exc:
                failed.append((upload.key, exc.strerror or str(exc)))
        return failed

    def remove(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Remove files."""
        for key in keys:
            path = self._content(key)
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return []

    def _content(self, key: str) -> Path:
        return self._folder / sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

    def _stamp(self, path: Path) -> Stamp:
        status = path.stat()
        return Stamp(status.st_size, f"{status.st_ino}-{status.st_mtime_ns}", "", status.st_mtime_ns // 1_000_000_000)
