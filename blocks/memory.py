"""Giving memory back to the system: what threads freed in pieces, the C library keeps for them."""

from __future__ import annotations

import ctypes

_KEPT_BYTES = 256 * 1024 * 1024
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


def give_back() -> None:
    """Give free memory back to the system where it is much; parts of some 64 MB come and go in a dozen threads."""
    if _trim is not None and _figures is not None and _figures().fordblks > _KEPT_BYTES:
        _trim(0)
