"""Memory that was freed, but that the C library keeps."""

import ctypes


def give_back() -> None:
    """Return it to the system; it does something with glibc alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
