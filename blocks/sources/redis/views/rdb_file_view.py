"""A look at an RDB file: at a copy of it in a private server, so that nobody changes it underneath."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import SourceUnavailable
from blocks.host.leftovers import is_full, temporary_failure
from blocks.sources.redis.net.private_server import RDB, private_server
from blocks.sources.redis.place import Place
from blocks.sources.redis.views.view import RedisView
from blocks.sources.redis.views.view_factory import ViewFactory
from blocks.sources.redis.write.rdb_file_target import stamp_of


@contextmanager
def view_of(
    place: Place, folder: Path, views: ViewFactory, kind: type[RedisView], put_off_ms: int
) -> Iterator[RedisView]:
    """Open a look at a file.

    Args:
        place: The RDB file.
        folder: Folder for the copy of the file.
        views: Makes the view.
        kind: The class of the view.
        put_off_ms: By how much expiries are put off in files of a verification.

    Raises:
        ConfigurationError: There is no server program here.
        SourceUnavailable: It cannot be read.
    """
    stamp, modified = stamp_of(place.path), _modified(place.path)
    try:
        shutil.copyfile(place.path, folder / RDB)
    except OSError as exc:
        if is_full(exc):  # to read a file takes no room
            raise temporary_failure(f"a copy of {place.path}", folder, exc) from exc
        raise SourceUnavailable(
            f"{place.path} cannot be read: {exc.strerror}", hint="Check `url` in the plan."
        ) from exc
    with private_server(folder, views.program) as server:
        system, put_off = f"{server.product} at {place}", put_off_ms if place.proof else 0
        view = views.live_view(server, modified, system, put_off, kind=kind)
        view.stamp = stamp
        yield view


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(os.stat(path).st_mtime, UTC)
    except OSError:
        return None
