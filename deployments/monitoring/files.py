"""The files as a site needs them: under the prefix of its metrics, with the places that are scraped.

They stand beside this module complete, for metrics without a prefix and an exporter on the same machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.telemetry.published import checked_prefix, underscored

ALERTS, DASHBOARD = "alerts.yml", "dashboard.json"
NAMES = ("prometheus.yml", ALERTS, "alertmanager.yml", DASHBOARD)

_PUBLISHED = re.compile(r"\bbackup_(?=operations_|retention_)")
"""How the names begin that a prefix comes before; all other names say `lastgood` already."""
_TARGET = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+):([0-9]{1,5})")
_MOST_PORT = 65_535
_SCRAPED = '["localhost:9817"]'


def monitoring_files(prefix: str = "", targets: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the content of each file by its name.

    Args:
        prefix: That of the metrics; nothing for none.
        targets: Where the exporters listen, each as `host:port`; none for the usual port of this machine.

    Raises:
        ConfigurationError: The prefix cannot be one in Prometheus, or a target is no host with a port.
    """
    try:
        before = underscored("", checked_prefix(prefix))
    except ValueError as exc:
        raise ConfigurationError(
            f"{prefix!r} cannot be the prefix of a metric: {exc}", hint="Give that of the metrics."
        ) from None
    for target in targets:
        if not (found := _TARGET.fullmatch(target)) or not 0 < int(found[2]) <= _MOST_PORT:
            raise ConfigurationError(
                f"{target!r} is no place to scrape", hint="Write it as host:port, such as backup1:9817."
            )
    scraped = json.dumps(list(targets)) if targets else _SCRAPED
    texts = {name: files(__package__).joinpath(name).read_text("utf-8") for name in NAMES}
    return {name: _PUBLISHED.sub(f"{before}backup_", text).replace(_SCRAPED, scraped) for name, text in texts.items()}


def write_monitoring_files(folder: Path, prefix: str = "", targets: Sequence[str] = ()) -> Sequence[Path]:
    """Write the files into a folder, which is made where it is missing, and return their paths.

    Raises:
        ConfigurationError: As above; or one of them is there already, or cannot be written. What was there is left, and
            nothing else is.
    """
    contents = {folder / name: text for name, text in monitoring_files(prefix, targets).items()}
    made: list[Path] = []
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigurationError(f"{folder} is a file, and no folder", hint="Name a folder for the files.")
        for path in contents:
            if path.exists() or path.is_symlink():
                raise ConfigurationError(
                    f"{path} exists; it is not written over", hint="Name another folder, or move it away."
                )
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as exc:
        for path in made:
            path.unlink(missing_ok=True)
        raise ConfigurationError(
            f"the files cannot be written into {folder}: {exc.strerror}", hint="Name another folder."
        ) from exc
    return list(contents)
