"""Run a command of lastgood and count what it reads from the repository: `python -m benchmarks.counted WORDS...`."""

from __future__ import annotations

import sys
import threading
from typing import Any

from blocks.storage.local import LocalTier
from lastgood import main


class Counter:
    """Counts the reads of a storage tier."""

    def __init__(self) -> None:
        self.reads = self.bytes = 0
        self._guard = threading.Lock()

    def attach(self) -> None:
        """Count all reads of this process from now on."""
        read = LocalTier.get

        def get(tier: LocalTier, *args: Any, **kwargs: Any) -> bytes:
            data = read(tier, *args, **kwargs)
            with self._guard:
                self.reads += 1
                self.bytes += len(data)
            return data

        LocalTier.get = get  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    counter = Counter()
    counter.attach()
    code = main(sys.argv[1:])
    print(f"counted {counter.bytes} bytes in {counter.reads} reads")
    raise SystemExit(code)
