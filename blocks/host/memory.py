"""How a process holds memory, and gives it back; imports nothing, since it comes before pyarrow.

Arrow's own allocators, and glibc with an arena for each thread, keep what a thread freed for that thread. A backup of
2 GB held 770 MB at its peak; with the system's allocator and two arenas it was 520 MB, at the same speed.
"""

from __future__ import annotations

import ctypes
import os

_POOL, _ARENAS = "ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX"
_M_ARENA_MAX = -8  # from glibc's malloc.h
_MOST_ARENAS = 2

KEPT_BYTES = 256 * 1024 * 1024
"""How much may be kept: to give it back and to get it again takes time."""


class _Figures(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


_library = ctypes.CDLL(None)
_trim = getattr(_library, "malloc_trim", None)
_figures = getattr(_library, "mallinfo2", None)
"""Those of glibc, since 2.33; other libraries have none."""
if _figures is not None:
    _figures.restype = _Figures


def settle_allocators() -> None:
    """Choose allocators for this process and its children, where nobody chose otherwise; before pyarrow is imported.

    Only for a process that does nothing else: a command, or the server of schedules, whose runs are its children.
    prefect.yaml says the same for the runs of a work pool.
    """
    if not hasattr(_library, "gnu_get_libc_version") or _POOL in os.environ:
        return
    os.environ[_POOL] = "system"
    if _ARENAS not in os.environ:  # else glibc has read it when this process started
        os.environ[_ARENAS] = str(_MOST_ARENAS)
        _library.mallopt(_M_ARENA_MAX, _MOST_ARENAS)


def give_back(kept_bytes: int = KEPT_BYTES) -> None:
    """Give free memory back to the system where it is much; parts of some 64 MB come and go in a dozen threads."""
    if _trim is not None and _figures is not None and _figures().fordblks > kept_bytes:
        _trim(0)
