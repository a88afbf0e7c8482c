"""The verbs of lastgood, each a Prefect flow: `from flows import backup, restore, verify, retention`."""

from flows.backup import backup
from flows.restore import restore
from flows.retention import retention
from flows.verify import verify

__all__ = ["backup", "restore", "retention", "verify"]
