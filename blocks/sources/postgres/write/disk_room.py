"""Room on the disks of a server that runs on this machine; those of another one cannot be seen from here."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from blocks.host.room import Need, check_room
from blocks.sources.postgres.connect import Session, place_of
from blocks.sources.target import RestoreScope

_ROW_BYTES = 28
"""What a row takes beside its values: its header, and where it is in its page."""

_DISKS = """
SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'),
       pg_catalog.pg_backend_pid(), pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size')),
       EXISTS (SELECT FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
               WHERE d.datname = pg_catalog.current_database() AND t.spcname <> 'pg_default')
"""


def check_disk(session: Session, conninfo: str, scope: RestoreScope, *, spread: bool) -> None:
    """See that there is room for what is restored: what it replaces goes only when all of it is there.

    Args:
        session: On the server, in the database or beside one that is missing.
        conninfo: Connection string of the database, as libpq reads it.
        scope: The collections, rows and mode of the restore.
        spread: Whether some of it goes to tablespaces of its own, so that nobody knows how much goes where.

    Raises:
        RestoreRefused: There is not; names the folder.
    """
    row = session.execute(_DISKS.encode()).fetchone()
    assert row is not None
    setting, pid, log_bytes, elsewhere = row
    folder = _data_folder(session, setting, int(str(pid)))
    if folder is None or scope.selection.keys or scope.narrowed:  # of single rows nobody knows how large they are
        return
    rows = sum(rows for _, rows in scope.collections)
    size_bytes = scope.size_bytes + rows * _ROW_BYTES if rows else 0
    log = folder / "pg_wal"
    # a full disk of the log ends the server; the log of a long restore is cut at about that size
    logged_bytes = max(0, min(size_bytes, int(str(log_bytes))) - _size_of(log))
    what = f"restoring to {place_of(conninfo)}"
    data = [] if spread or elsewhere else [Need(folder, size_bytes, what)]
    check_room(*data, Need(log if _is_there(log) else folder, logged_bytes, f"{what}, with the server's log,"))


def _data_folder(session: Session, setting: object, pid: int) -> Path | None:
    """Return the folder of the server's data where that is one of this machine, else None."""
    host, address = session.info.host, session.info.hostaddr
    if not (host.startswith(("/", "@")) or address == "::1" or address.startswith("127.")):
        return None
    # a forwarded port or a container is not what it seems: its processes are not ours
    with suppress(OSError):
        if not Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").startswith("post"):
            return None
        # the setting is shown to few roles; a server works in that folder
        folder = Path(str(setting)) if setting is not None else Path(os.readlink(f"/proc/{pid}/cwd"))
        return folder if folder.is_dir() else None
    return None


def _is_there(folder: Path) -> bool:
    with suppress(OSError):  # the server's folders are closed to others
        return folder.is_dir()
    return False


def _size_of(log: Path) -> int:
    """Count what the log takes already, which is used again; 0 where that cannot be seen."""
    with suppress(OSError):
        return sum(entry.stat().st_size for entry in os.scandir(log) if entry.is_file())
    return 0
