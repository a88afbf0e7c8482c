"""A tier: a disk that is mounted elsewhere on every machine, by the name of the variable that says where."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from blocks.errors import ConfigurationError
from blocks.storage.local import LocalTier


class ShelfTier(LocalTier):
    """Objects in the folder that `SHELF_<NAME>` names, and in a folder of it: `shelf://name/folder`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        variable = f"SHELF_{parts.netloc.upper()}"
        folder = os.environ.get(variable)
        if not folder:
            raise ConfigurationError(f"{url}: {variable} is not set", hint="Set it to the folder of the disk.")
        super().__init__(os.path.join(folder, parts.path.strip("/")))
        self.url = url
