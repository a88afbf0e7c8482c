"""Names of temporary places (staged trees, scratch folders, scratch databases) that identify who made them.

A killed process cannot clean up. The next command on that machine can, because the name says which plan, machine, boot
and process it belongs to: one of a live process, of another machine or of somebody else is never touched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import ConfigurationError, TemporaryFolderFull, TemporaryFolderUnusable
from blocks.host.identity import machine

SCRATCH = "lastgood-"
"""How the names of our folders in the temporary folder begin."""
ASIDE = ".lastgood-aside-"
"""What stands between the name of a file that was moved aside and the time of that."""
_OWNER = re.compile(r"(?P<plan>[a-z0-9._-]*?)-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{8}$")
_PROCESS = re.compile(r".*:(?P<pid>\d+) \[(?P<machine>[0-9a-f]{8})-(?P<started>\d+)\]", re.DOTALL)
_UNKNOWN = "0"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MACHINE = Path("/etc/machine-id")
_FIRST_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of Linux: what the namespace of processes is called that is there since the boot."""


def owned_name(prefix: str, plan: str = "") -> str:
    """Make the name of a temporary place: `prefix`, the plan, this machine, this process and its start, a random end.

    At most 63 characters without the plan's name; those of databases leave it out.
    """
    return f"{prefix}{plan}-{_machine()}-{os.getpid()}-{_own_start()}-{secrets.token_hex(4)}"


def left_behind(name: str, prefix: str) -> bool:
    """Whether a name was made by `owned_name` with that prefix, on this machine, by a process that has ended."""
    if not name.startswith(prefix) or (found := _OWNER.fullmatch(name[len(prefix) :])) is None:
        return False
    if found["machine"] != _machine():
        return False
    return _runs(found["pid"], found["started"]) is False


def owner(name: str, prefix: str) -> str:
    """Name the plan and process of such a name, for messages."""
    found = _OWNER.fullmatch(name[len(prefix) :])
    assert found is not None, name
    plan = f"of plan {found['plan']}, " if found["plan"] else ""
    return f"{plan}process {found['pid']}"


def process_name() -> str:
    """Name this process to people, with what `has_ended` identifies it by: `host:pid [machine-start]`."""
    return f"{socket.gethostname()}:{os.getpid()} [{_running_machine()}-{_own_start()}]"


def has_ended(name: str) -> bool:
    """Whether a process of this machine and user, named by `process_name`, has ended; False of all others."""
    return runs(name) is False


def runs(name: str) -> bool | None:
    """Whether a process that `process_name` named still runs; None of other machines, containers and users."""
    found = _PROCESS.fullmatch(name)
    if found is None or found["machine"] != _running_machine():
        return None
    return _runs(found["pid"], found["started"])


def running_host() -> tuple[str, str] | None:
    """Name this host, and how it runs now: since which boot. After another one no process of before is there.

    Returns:
        None in a container, whose host it does not know, and where a host has no id.
    """
    try:
        first = os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE
    except OSError:
        return None
    found, boot = machine(), _said(_BOOT)
    return (found, _digest(boot)) if first and found is not None and boot else None


def temporary_folder() -> Path:
    """Return the folder for temporary data: what TMPDIR names, or /tmp; never another one where that fails.

    Decrypted state goes there, so a folder that nobody chose will not do.

    Raises:
        ConfigurationError: It is missing or cannot be written.
    """
    folder = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108  made with a mode of its own below it
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"the folder for temporary data, {folder}, is missing or cannot be written",
            hint="Set TMPDIR to a folder with room, on a disk that may hold decrypted state for a while.",
        )
    return folder.absolute()


def aside_path(path: Path) -> Path:
    """Make the name, beside it and with the time, that a file gets when it has to make room for what is restored."""
    return path.with_name(f"{path.name}{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")


@contextmanager
def kept_temporarily(what: str, folder: object = "the folder for temporary data") -> Iterator[None]:
    """Translate what the operating system says while something is written to the temporary folder.

    Args:
        what: What is written, as a noun phrase.
        folder: The folder, as it is shown.

    Raises:
        TemporaryFolderFull: No room is left there.
        TemporaryFolderUnusable: It cannot be written for another reason.
    """
    try:
        yield
    except OSError as exc:
        raise temporary_failure(what, folder, exc) from exc


def temporary_failure(what: str, folder: object, error: OSError) -> TemporaryFolderUnusable:
    """Say in our words what the operating system said of the temporary folder."""
    full = is_full(error)
    kind = TemporaryFolderFull if full else TemporaryFolderUnusable
    hint = "Free some room there, or set" if full else "Check its disk and its rights, or set"
    return kind(f"{what} cannot be kept in {folder}: {error}", hint=f"{hint} TMPDIR to another folder.")


def is_full(error: OSError) -> bool:
    """Whether the operating system says that a disk, or a quota of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def make_scratch_folder(kind: str, plan: str = "") -> Path:
    """Make a private folder (mode 0700) in the temporary folder, after removing those that killed processes left.

    Args:
        kind: What it is for, as a word of letters; part of its name.
        plan: Name of the plan it belongs to.

    Raises:
        ConfigurationError: There is no temporary folder.
        TemporaryFolderFull: No folder can be made in it for want of room.
    """
    inside = temporary_folder()
    folder = inside / owned_name(f"{SCRATCH}{kind}-", plan)
    with kept_temporarily("a scratch folder", inside):
        remove_left_behind(inside, f"{SCRATCH}{kind}-")
        folder.mkdir(mode=0o700)
    return folder


@contextmanager
def scratch_folder(kind: str, plan: str = "") -> Iterator[Path]:
    """Have a private folder for a while; it is removed at the end, and what cannot be removed hides no error."""
    folder = make_scratch_folder(kind, plan)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_scratch() -> None:
    """Remove what killed processes left in the temporary folder, of whatever kind."""
    with suppress(ConfigurationError, OSError):
        remove_left_behind(temporary_folder(), SCRATCH)


def remove_left_behind(inside: Path, prefix: str) -> list[str]:
    """Remove the folders and files of killed processes whose names begin with a prefix; return the names."""
    removed = []
    for entry in list(os.scandir(inside)):
        if left_behind(entry.name, prefix):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
            removed.append(entry.name)
    return removed


def _machine() -> str:
    """Identify machine, container and user: of others that see the same folder no process is known."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    # many machines have one name (`localhost`), and the first namespace of every system has one number
    return _digest(f"{socket.gethostname()}:{_said(_MACHINE)}:{os.getuid()}:{namespace}")


def _running_machine() -> str:
    """Identify the machine as it runs now: no other one has its boot id, also where all else was copied."""
    return _digest(f"{_machine()}:{_said(_BOOT)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _said(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _runs(pid: str, started: str) -> bool | None:
    """Whether a process of this machine still runs; None where that cannot be told."""
    if started == _UNKNOWN:
        return None
    try:
        return _started(int(pid)) == started
    except OSError:
        return None


def _own_start() -> str:
    try:
        return _started(os.getpid()) or _UNKNOWN
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str | None:
    """Return a number that stands for when a process started, since which boot; None where there is no such process.

    Raises:
        OSError: That is not known.
    """
    boot = _BOOT.read_text(encoding="utf-8").strip()
    if os.readlink("/proc/self") != str(os.getpid()):
        # a container that sees the processes of another one: there each number is that of somebody else
        raise OSError("/proc shows the processes of another namespace")
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = said.rpartition(")")[2].split()
    if state in "ZX":  # it has ended, and nobody has asked how
        return None
    return str(int(hashlib.sha256(f"{boot}:{fields[18]}".encode()).hexdigest()[:8], 16))
