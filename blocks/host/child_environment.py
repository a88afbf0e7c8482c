"""The environment of the programs that are run beside us: what they need, and no secret of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable

_NEEDED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP"),
        *("LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)


def child_environment(more: Iterable[str] = (), **settings: str) -> dict[str, str]:
    """Return what a child program is started with.

    Args:
        more: Names of variables that it needs beside those that all programs do, as far as they are set.
        settings: Variables that are set for it.
    """
    names = _NEEDED.union(more)
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")}
    return {"PATH": os.defpath} | kept | settings
