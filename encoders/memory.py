"""Memory that is free but still ours."""

from __future__ import annotations

import ctypes
import gc
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Give free memory back to the system: glibc keeps what a large model took while it was read.

    Unreachable rings of objects go too. Does nothing more than that where the C library has no
    malloc_trim.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
