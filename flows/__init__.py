"""The verbs of lastgood, each a Prefect flow: `from flows import backup, restore, undo, verify, retention`.

They are imported with the package, so that a name here is the verb's, also where its module was imported first.
"""

from __future__ import annotations

from flows.backup import backup
from flows.restore import restore
from flows.retention import retention
from flows.undo import undo
from flows.verify import verify

__all__ = ["backup", "restore", "retention", "undo", "verify"]
