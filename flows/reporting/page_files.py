"""Where pages of results go: a file that somebody names, or a folder of this machine that keeps the newest ones."""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from blocks.errors import ConfigurationError
from blocks.host.folders import sync_folder
from blocks.host.leftovers import owned_name
from blocks.host.state_folder import state_folder
from blocks.repository import names
from blocks.verification import Verification
from flows.reporting.html_pages import IS_OURS

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "LASTGOOD_REPORTS"
URL_VARIABLE = "LASTGOOD_REPORTS_URL"
MOST_PAGES = 30
"""How many pages of a plan are kept in the folder; the oldest go first."""

_HEAD_BYTES = 400
_OUR_NAME = re.compile(r"[A-Z]{3}_[0-9]{8}_[0-9]{6}_[0-9a-f]{4}-[0-9TZ.]+\.html")


def check_page(path: Path) -> None:
    """Refuse a place where no page can be written, before any work is done for it.

    Raises:
        ConfigurationError: Its folder is missing or cannot be written, or something is there that is no page of ours.
    """
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"no report can be written to {path}: the folder {folder} is missing or cannot be written",
            hint="Make the folder, or name a file in another one.",
        )
    if not os.path.lexists(path):
        return
    try:
        ours = path.is_file() and _head(path).find(IS_OURS) >= 0
    except OSError as exc:
        raise ConfigurationError(
            f"the report {path} cannot be read: {exc.strerror}", hint="Name another file."
        ) from exc
    if not ours:
        raise ConfigurationError(
            f"{path} is there already, and is no report of lastgood", hint="Name another file, or move it away."
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def write_page(path: Path, page: str) -> None:
    """Write a page in one step, so that a reader sees the old one or the new one; one that is replaced keeps its mode.

    Raises:
        ConfigurationError: It cannot be written, or something is there that is no page of ours.
    """
    check_page(path)
    try:
        _replace(path.absolute(), page.encode())
    except OSError as exc:
        raise ConfigurationError(
            f"the report {path} cannot be written: {exc.strerror}", hint="Name a file on another disk."
        ) from exc


def _replace(path: Path, content: bytes) -> None:
    made = path.with_name(owned_name(".lastgood-report-"))
    try:
        # keys of rows may be in it, so at first only its owner reads it
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            with suppress(FileNotFoundError):
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def keep_page(result: Verification, page: str) -> Path | None:
    """Keep a page among the newest ones of its plan, below `$LASTGOOD_REPORTS` or `$XDG_STATE_HOME/lastgood/reports`.

    Returns:
        The file, `<plan>/<backup id>-<number of the verification>.html` (its time where it has no number), which only
        its owner can read; None where it cannot be written, which is logged: a report stops nothing.
    """
    number = f"{result.sequence:06d}" if result.sequence else names.moment(result.verified_at)
    try:
        folder = reports_folder() / names.checked_plan(result.plan)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{result.backup_id}-{number}.html"
        _replace(path, page.encode())
        _remove_oldest(folder)
    except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home
        logger.warning("the page of results of backup %s cannot be kept: %s", result.backup_id, exc)
        return None
    return path


def keep_report(plan: str, page: str) -> Path | None:
    """Keep the report of a plan beside those pages, as `<plan>/report.html`, in place of the one before.

    Returns:
        The file; None where it cannot be written, which is logged.
    """
    try:
        path = reports_folder() / names.checked_plan(plan) / "report.html"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, page.encode())
    except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home
        logger.warning("the report of plan %s cannot be kept: %s", plan, exc)
        return None
    return path


def reports_folder() -> Path:
    """Return the folder of kept pages, which may not exist.

    Raises:
        RuntimeError: It is not set, and the user has no home.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else state_folder() / "reports"


def page_url(path: Path) -> str | None:
    """Return where a kept page is seen by others, where `$LASTGOOD_REPORTS_URL` says what serves the folder."""
    base = os.environ.get(URL_VARIABLE, "")
    if not base.startswith(("http://", "https://")):
        return None
    return f"{base.rstrip('/')}/{quote('/'.join(path.parts[-2:]))}"


def _remove_oldest(folder: Path) -> None:
    pages = [path for path in folder.iterdir() if _OUR_NAME.fullmatch(path.name)]
    for path in sorted(pages, key=lambda page: page.stat().st_mtime_ns, reverse=True)[MOST_PAGES:]:
        path.unlink(missing_ok=True)
