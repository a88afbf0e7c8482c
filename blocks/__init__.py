"""The nouns of lastgood: what a backup is made of.

Importing them settles how this process holds memory, before pyarrow decides it: parts of some 64 MB come and go in a
dozen threads, and Arrow's own allocators, and glibc with an arena per thread, keep what each thread freed for that
thread. A backup of 2 GB then held 770 MB at its peak; with the system's allocator and two arenas it was 520 MB, at the
same speed. Whoever set `ARROW_DEFAULT_MEMORY_POOL` has decided otherwise.
"""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8  # from glibc's malloc.h
_ARENAS = 2

if hasattr(ctypes.CDLL(None), "gnu_get_libc_version") and "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
